"""What is known of a network's channels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# What becomes of a weight when its channel is multiplied by s: it is multiplied by s
# ("out", "mean") or its square ("variance"), divided by it ("in"), or, where batch
# normalization makes the factor good again, by its sign ("sign").
Role = Literal["out", "in", "mean", "variance", "sign"]


@dataclass(frozen=True)
class Member:
    """An axis of a weight that counts channels.

    Channel c is at `start + c + i * stride` for i from 0 to `repeats - 1`: a flattened
    picture has each channel once for each pixel.

    Attributes:
        layer: The layer's name.
        variable: The weight's name in the layer.
        axis: Which axis of the weight, from the last: -1, -2 ...
        role: What becomes of the weight when the channel is scaled.
        start: Where the first channel is.
        stride: How far its repetitions are apart.
        repeats: How many there are.
    """

    layer: str
    variable: str
    axis: int
    role: Role
    start: int = 0
    stride: int = 0
    repeats: int = 1

    def places(self, count: int) -> NDArray[np.intp]:
        """Where the channels are along the axis; shape `(repeats, count)`."""
        offsets = self.start + self.stride * np.arange(self.repeats)
        return offsets[:, None] + np.arange(count)


@dataclass
class Segment:
    """A stretch of a network along which channels have one scale.

    Attributes:
        channels: The number of the channels, in `ChannelGraph.channels`.
        members: The weights that make them or use them.
        may_scale: Whether a positive factor passes through all that is on the way.
        may_flip: Whether a change of sign does.
    """

    channels: int
    members: list[Member] = field(default_factory=list)
    may_scale: bool = True
    may_flip: bool = True


@dataclass
class Channels:
    """Channels that keep one order wherever they are used.

    Attributes:
        count: How many.
        fixed: Whether another order would change what the network computes.
        entered: The input layers of models inside the network that they pass.
    """

    count: int
    fixed: bool = False
    entered: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Part:
    """A stretch of a weight's axis that counts one set of channels.

    Attributes:
        channels: The number of the set.
        start: Where it begins.
        repeats: How often it is there, for each pixel of a flattened picture.
        segments: The segments whose signs the weights there have.
    """

    channels: int
    start: int
    repeats: int
    segments: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGraph:
    """Where the channels of a network are made and used.

    Attributes:
        channels: Every set of channels.
        segments: Every stretch of one scale.
    """

    channels: list[Channels]
    segments: list[Segment]

    def axes(self, channels: int) -> list[Member]:
        """All axes that count these channels, each once, whatever its role."""
        return list(
            dict.fromkeys(
                replace(member, role="out")
                for segment in self.segments
                if segment.channels == channels
                for member in segment.members
            )
        )

    def parts(self) -> dict[tuple[str, str, int], list[Part]]:
        """What each axis of each weight counts, by layer, variable and axis."""
        found: dict[tuple[str, str, int], dict[int, Part]] = {}
        for number, segment in enumerate(self.segments):
            for one in segment.members:
                axis = found.setdefault((one.layer, one.variable, one.axis), {})
                part = axis.setdefault(
                    one.start, Part(segment.channels, one.start, one.repeats, ())
                )
                if one.role != "variance":
                    signs = (*part.segments, number)
                    axis[one.start] = replace(part, segments=signs)
        return {
            axis: [parts[start] for start in sorted(parts)]
            for axis, parts in found.items()
        }
