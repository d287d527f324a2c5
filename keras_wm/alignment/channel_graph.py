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

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from keras_wm.utils.arrays import Indices

# The names of a layer and of a variable in it.
WeightName = tuple[str, str]
# The same, with an axis of the weight: -1 is the last one.
AxisName = tuple[str, str, int]

# The change of a weight that compensates for a channel that is multiplied by s. The
# weight is multiplied by s ("out", "mean"), by s**2 ("variance"), by 1 / s ("in"), or
# by the sign of s ("sign": a batch normalization, which removes its input's scale).
Role = Literal["out", "in", "mean", "variance", "sign"]

# A malicious config can concatenate a tensor with itself again and again, which doubles
# the number of its parts each time.
_MAX_PARTS = 10_000


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


@dataclass(frozen=True)
class Part:
    """A part of a weight's axis whose positions are the channels of one set.

    Attributes:
        set_id: Index of the channel set.
        start: Position of the first channel.
        repeats: Number of repetitions, such as the pixels of a flattened picture.
        segment_ids: Indices of the segments whose signs the weights have.
    """

    set_id: int
    start: int
    repeats: int
    segment_ids: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGraph:
    """All channel sets and segments of a network.

    Attributes:
        sets: The channel sets.
        segments: The segments.
    """

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

    def parts(self) -> dict[AxisName, list[Part]]:
        """Returns the parts of each weight's axes, in the order of their positions."""
        parts: dict[AxisName, dict[int, Part]] = {}
        for segment_id, segment in enumerate(self.segments):
            for member in segment.members:
                name = (member.layer, member.variable, member.axis)
                by_start = parts.setdefault(name, {})
                part = by_start.setdefault(
                    member.start,
                    Part(segment.set_id, member.start, member.repeats, ()),
                )
                # A variance is the same for both signs.
                if member.role != "variance":
                    segment_ids = (*part.segment_ids, segment_id)
                    by_start[member.start] = replace(part, segment_ids=segment_ids)
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

    def has_sizes_of(self, other: Layout) -> bool:
        """Returns whether the parts of two layouts have the same sizes."""
        sizes = [count for _, count in self.parts]
        other_sizes = [count for _, count in other.parts]
        return sizes == other_sizes and self.flattened == other.flattened


class ChannelGraphBuilder:
    """Builds a channel graph while the tensors of a network are followed.

    Segments and channel sets that turn out to be the same are merged at the end.
    """

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._sets: list[ChannelSet] = []
        self._same_segment = _DisjointSets()
        self._same_set = _DisjointSets()

    def add_channels(self, count: int) -> Layout:
        """Adds a new channel set with one segment."""
        self._sets.append(ChannelSet(count))
        return Layout(((self._add_segment(self._same_set.add()), count),))

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
        return self._same_segment.add()

    def concatenate(self, layouts: Iterable[Layout]) -> Layout | None:
        """Returns the layout of concatenated tensors; None if it has too many parts."""
        parts = tuple(part for layout in layouts for part in layout.parts)
        return Layout(parts) if len(parts) <= _MAX_PARTS else None

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
            self._same_segment.merge(segment, same)
            self._same_set.merge(
                self._segments[segment].set_id, self._segments[same].set_id
            )

    def build(self) -> ChannelGraph:
        """Returns the graph, with segments and sets merged that are the same."""
        set_ids = self._same_set.ids()
        sets: dict[int, ChannelSet] = {}
        for set_id, channels in zip(set_ids, self._sets, strict=True):
            merged = sets.setdefault(set_id, ChannelSet(channels.count))
            merged.fixed |= channels.fixed
            merged.nested_inputs |= channels.nested_inputs
        segments: dict[int, Segment] = {}
        for segment_id, segment in zip(
            self._same_segment.ids(), self._segments, strict=True
        ):
            joined = segments.setdefault(segment_id, Segment(set_ids[segment.set_id]))
            joined.members = list(dict.fromkeys(joined.members + segment.members))
            joined.may_scale &= segment.may_scale
            joined.may_flip &= segment.may_flip
        return ChannelGraph(list(sets.values()), list(segments.values()))


class _DisjointSets:
    """Disjoint sets of the numbers 0, 1, 2 ... (union-find)."""

    def __init__(self) -> None:
        self._parents: list[int] = []

    def add(self) -> int:
        """Adds the next number, in a set of its own, and returns it."""
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def merge(self, left: int, right: int) -> None:
        """Merges the sets of two numbers."""
        left, right = sorted((self._root(left), self._root(right)))
        self._parents[right] = left

    def ids(self) -> list[int]:
        """Returns the index of each number's set, in order of appearance."""
        roots = [self._root(number) for number in range(len(self._parents))]
        order = {root: index for index, root in enumerate(dict.fromkeys(roots))}
        return [order[root] for root in roots]

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            # Halving the path keeps later searches short.
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number
