"""A channel graph that is being drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_wm.alignment.channel_graph import (
    ChannelGraph,
    Channels,
    Member,
    Role,
    Segment,
)

_MOST_PARTS = 10_000


@dataclass(frozen=True)
class Layout:
    """What channels a tensor's last axis counts.

    Attributes:
        parts: Segments with their numbers of channels, one after the other.
        flattened: Whether all that is repeated for each pixel.
    """

    parts: tuple[tuple[int, int], ...]
    flattened: bool = False

    @property
    def count(self) -> int:
        """How many there are, at one pixel."""
        return sum(count for _, count in self.parts)

    def like(self, other: Layout) -> bool:
        """Whether the parts of two layouts are of the same sizes."""
        sizes = [[count for _, count in one.parts] for one in (self, other)]
        return sizes[0] == sizes[1] and self.flattened == other.flattened


class Draft:
    """Segments and channels, of which some may turn out to be the same."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []
        self._channels: list[Channels] = []
        self._same_segment = _Classes()
        self._same_channels = _Classes()

    def new(self, count: int) -> Layout:
        """Channels that were not there before."""
        self._channels.append(Channels(count))
        return Layout(((self._new_segment(self._same_channels.add()), count),))

    def beside(self, layout: Layout) -> Layout:
        """The same channels, at another scale."""
        return Layout(
            tuple(
                (self._new_segment(self._segments[segment].channels), count)
                for segment, count in layout.parts
            )
        )

    def _new_segment(self, channels: int) -> int:
        self._segments.append(Segment(channels))
        return self._same_segment.add()

    def beside_each_other(self, layouts: Iterable[Layout]) -> Layout | None:
        """The channels of one layout behind those of another."""
        parts = tuple(part for one in layouts for part in one.parts)
        # Put together with itself again and again, a tensor of any size results.
        return Layout(parts) if len(parts) <= _MOST_PARTS else None

    def note(
        self,
        layout: Layout,
        layer: str,
        variable: str,
        axis: int,
        role: Role,
        repeats: int = 1,
    ) -> None:
        """Notes that an axis of a weight counts these channels."""
        start = 0
        for segment, count in layout.parts:
            self._segments[segment].members.append(
                Member(layer, variable, axis, role, start, layout.count, repeats)
            )
            start += count

    def restrict(
        self, layout: Layout, scale: bool = False, sign: bool = False
    ) -> Layout:
        """Notes what may still pass: a positive factor, a change of sign."""
        for segment, _ in layout.parts:
            self._segments[segment].may_scale &= scale
            self._segments[segment].may_flip &= sign
        return layout

    def freeze(self, layout: Layout | None) -> None:
        """Notes that order, scale and sign have to stay."""
        if layout is not None:
            self.restrict(layout)
            for segment, _ in layout.parts:
                self._channels[self._segments[segment].channels].fixed = True

    def enter(self, layout: Layout | None, layer: str) -> None:
        """Notes that channels pass the input layer of a model inside."""
        for segment, _ in layout.parts if layout else ():
            self._channels[self._segments[segment].channels].entered.add(layer)

    def join(self, left: Layout, right: Layout) -> None:
        """Notes that two layouts are alike in order and scale."""
        for (one, _), (other, _) in zip(left.parts, right.parts, strict=True):
            self._same_segment.unite(one, other)
            self._same_channels.unite(
                self._segments[one].channels, self._segments[other].channels
            )

    def finished(self) -> ChannelGraph:
        """Everything, with what is the same put together."""
        of_channels = self._same_channels.numbers()
        channels: dict[int, Channels] = {}
        for number, part in zip(of_channels, self._channels, strict=True):
            whole = channels.setdefault(number, Channels(part.count))
            whole.fixed |= part.fixed
            whole.entered |= part.entered
        segments: dict[int, Segment] = {}
        for number, each in zip(
            self._same_segment.numbers(), self._segments, strict=True
        ):
            joined = segments.setdefault(number, Segment(of_channels[each.channels]))
            joined.members = list(dict.fromkeys(joined.members + each.members))
            joined.may_scale &= each.may_scale
            joined.may_flip &= each.may_flip
        return ChannelGraph(list(channels.values()), list(segments.values()))


class _Classes:
    """Numbers from 0 on, some of which are the same."""

    def __init__(self) -> None:
        self._parents: list[int] = []

    def add(self) -> int:
        """One more."""
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def unite(self, left: int, right: int) -> None:
        """Makes two the same, under the smaller one's name."""
        left, right = sorted((self._root(left), self._root(right)))
        self._parents[right] = left

    def numbers(self) -> list[int]:
        """For each, the number of its class, in order of appearance."""
        roots = [self._root(number) for number in range(len(self._parents))]
        order = {root: number for number, root in enumerate(dict.fromkeys(roots))}
        return [order[root] for root in roots]

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number
