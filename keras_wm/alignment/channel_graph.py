"""The channel graph of a network: the weight axes that belong to the same channels.

A channel is one position of a tensor's last axis: a filter of one layer and an input of
the next one. All tensors whose channels must have the same order form a channel set. In
a residual network, for example, the outputs of all layers that are added to each other
are one set.

A channel set consists of segments. On a segment, a channel also has the same scale and
sign everywhere. A batch normalization begins a new segment of the same set, because its
output does not depend on the scale of its input.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from keras_wm.utils.arrays import Indices

# The names of a layer and of a variable in it.
WeightName = tuple[str, str]
# The same, with an axis of the weight: -1 is the last one.
AxisName = tuple[WeightName, int]

# The change of a weight that compensates for a channel that is multiplied by s. The
# weight is multiplied by s ("out", "mean"), by s**2 ("variance"), by 1 / s ("in"), or
# by the sign of s ("sign": a batch normalization, which removes its input's scale).
Role = Literal["out", "in", "mean", "variance", "sign"]


@dataclass(frozen=True)
class Member:
    """An axis of a weight, or a part of one, whose positions are channels.

    Channel c is at the positions `start + c + i * stride` for i from 0 to
    `repeats - 1`. A dense layer after a flattened picture, for example, has each
    channel once per pixel.

    Attributes:
        layer: Name of the layer.
        variable: Name of the weight in the layer.
        axis: Axis of the weight, counted from the last one: -1, -2 ...
        role: Change of the weight when the channel is scaled.
        start: Position of the first channel.
        stride: Distance between repetitions.
        repeats: Number of repetitions.
    """

    layer: str
    variable: str
    axis: int
    role: Role
    start: int = 0
    stride: int = 0
    repeats: int = 1

    def places(self, count: int) -> Indices:
        """Returns the positions of the channels, shape `(repeats, count)`."""
        offsets = self.start + self.stride * np.arange(self.repeats)
        return offsets[:, None] + np.arange(count)


@dataclass
class Segment:
    """A run of tensors on which each channel has one scale and sign.

    Attributes:
        set_id: Index of its channel set in `ChannelGraph.sets`.
        members: The weight axes that produce or use these channels.
        may_scale: Whether the network computes the same if a channel is multiplied by a
            positive factor in all members.
        may_flip: Whether the same holds for a change of sign.
    """

    set_id: int
    members: list[Member] = field(default_factory=list)
    may_scale: bool = True
    may_flip: bool = True


@dataclass
class ChannelSet:
    """Channels that have the same order wherever they are used.

    Attributes:
        count: Number of channels.
        fixed: Whether another order would change the network's function.
        nested_inputs: Names of the input layers of nested models that the channels
            pass.
    """

    count: int
    fixed: bool = False
    nested_inputs: set[str] = field(default_factory=set)


@dataclass
class Part:
    """A part of a weight's axis whose positions are the channels of one set.

    Attributes:
        set_id: Index of the channel set.
        repeats: Number of repetitions, such as the pixels of a flattened picture.
        segment_ids: Indices of the segments whose signs the weights have.
    """

    set_id: int
    repeats: int
    segment_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ChannelGraph:
    """All channel sets and segments of a network."""

    sets: list[ChannelSet]
    segments: list[Segment]

    def axes(self, set_id: int) -> list[Member]:
        """Returns each weight axis of a channel set once, with the role "out"."""
        return list(
            dict.fromkeys(
                replace(member, role="out")
                for segment in self.segments
                if segment.set_id == set_id
                for member in segment.members
            )
        )

    @cached_property
    def parts(self) -> dict[AxisName, list[Part]]:
        """The parts of each weight's axes, in the order of their positions."""
        parts: dict[AxisName, dict[int, Part]] = {}
        for segment_id, segment in enumerate(self.segments):
            for member in segment.members:
                name = ((member.layer, member.variable), member.axis)
                by_start = parts.setdefault(name, {})
                part = by_start.setdefault(
                    member.start, Part(segment.set_id, member.repeats)
                )
                # A variance is the same for both signs.
                if member.role != "variance":
                    part.segment_ids.append(segment_id)
        return {
            name: [by_start[start] for start in sorted(by_start)]
            for name, by_start in parts.items()
        }


@dataclass(frozen=True)
class Layout:
    """The channels on the last axis of a tensor.

    Attributes:
        parts: Segments and their numbers of channels, in the order of the axis.
        flattened: Whether the axis repeats all of them for each pixel.
    """

    parts: tuple[tuple[int, int], ...]
    flattened: bool = False

    @property
    def count(self) -> int:
        """Number of channels per pixel."""
        return sum(count for _, count in self.parts)

    @property
    def sizes(self) -> tuple[list[int], bool]:
        """The number of channels of each part, and whether they are flattened."""
        return [count for _, count in self.parts], self.flattened


class ChannelGraphBuilder:
    """Builds a channel graph while the tensors of a network are followed.

    Segments and channel sets that turn out to be the same are merged at the end.
    """

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._sets: list[ChannelSet] = []
        # Pairs of segments that are the same.
        self._same_segments: set[tuple[int, int]] = set()

    def add_channels(self, count: int) -> Layout:
        """Adds a new channel set with one segment."""
        self._sets.append(ChannelSet(count))
        return Layout(((self._add_segment(len(self._sets) - 1), count),))

    def add_segments(self, layout: Layout) -> Layout:
        """Adds new segments of the same channel sets."""
        return Layout(
            tuple(
                (self._add_segment(self._segments[segment].set_id), count)
                for segment, count in layout.parts
            )
        )

    def _add_segment(self, set_id: int) -> int:
        self._segments.append(Segment(set_id))
        return len(self._segments) - 1

    def add_member(
        self,
        layout: Layout,
        layer: str,
        variable: str,
        axis: int,
        role: Role,
        repeats: int = 1,
    ) -> None:
        """Adds an axis of a weight to the segments of a layout."""
        start = 0
        for segment, count in layout.parts:
            self._segments[segment].members.append(
                Member(layer, variable, axis, role, start, layout.count, repeats)
            )
            start += count

    def restrict(
        self, layout: Layout, may_scale: bool = False, may_flip: bool = False
    ) -> Layout:
        """Restricts the changes that leave the network's function the same."""
        for segment, _ in layout.parts:
            self._segments[segment].may_scale &= may_scale
            self._segments[segment].may_flip &= may_flip
        return layout

    def freeze(self, layout: Layout | None) -> None:
        """Marks the order, scale and sign of channels as fixed."""
        if layout is not None:
            self.restrict(layout)
            for segment, _ in layout.parts:
                self._sets[self._segments[segment].set_id].fixed = True

    def add_nested_input(self, layout: Layout | None, layer: str) -> None:
        """Adds the input layer of a nested model to the channels that pass it."""
        for segment, _ in layout.parts if layout else ():
            self._sets[self._segments[segment].set_id].nested_inputs.add(layer)

    def merge(self, left: Layout, right: Layout) -> None:
        """Marks two layouts as the same in order, scale and sign."""
        for (segment, _), (same, _) in zip(left.parts, right.parts, strict=True):
            self._same_segments.add((segment, same))

    def build(self) -> ChannelGraph:
        """Returns the graph, with segments and sets merged that are the same."""
        same_sets = {
            (self._segments[segment].set_id, self._segments[same].set_id)
            for segment, same in self._same_segments
        }
        set_ids = _components(len(self._sets), same_sets)
        segment_ids = _components(len(self._segments), self._same_segments)
        sets: dict[int, ChannelSet] = {}
        for set_id, channels in zip(set_ids, self._sets, strict=True):
            merged = sets.setdefault(set_id, ChannelSet(channels.count))
            merged.fixed |= channels.fixed
            merged.nested_inputs |= channels.nested_inputs
        segments: dict[int, Segment] = {}
        for segment_id, segment in zip(segment_ids, self._segments, strict=True):
            joined = segments.setdefault(segment_id, Segment(set_ids[segment.set_id]))
            joined.members = list(dict.fromkeys(joined.members + segment.members))
            joined.may_scale &= segment.may_scale
            joined.may_flip &= segment.may_flip
        return ChannelGraph(list(sets.values()), list(segments.values()))


def _components(count: int, pairs: set[tuple[int, int]]) -> list[int]:
    """Returns each node's connected component, numbered in order of appearance."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return list(range(count))
    # SciPy before 1.12 silently returns wrong components for 64-bit indices.
    edges = np.ones(len(pairs), bool), tuple(np.array(list(pairs), "int32").T)
    graph = coo_array(edges, shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    indices = {label: index for index, label in enumerate(dict.fromkeys(labels))}
    return [indices[label] for label in labels]
