"""Where the channels of the owner's network are in a suspect's weights."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.channel_graph import ChannelGraph, Part
from keras_wm.alignment.similarity import Indices
from keras_wm.errors import AlignmentError
from keras_wm.utils.arrays import Floats

WeightName = tuple[str, str]
# By the layer's name and the variable's.
Weights = Mapping[WeightName, Floats]

MISSING = -1


class Correspondence:
    """What is known of where each of the owner's channels is, and of its sign.

    Args:
        graph: The channels of the owner's network.
        reference: Its weights, of which only the shapes are looked at.
        suspect: The suspect's weights, under the same names; of them too.

    Raises:
        AlignmentError: If the suspect is of another architecture.

    Attributes:
        parts: Which channels are counted along which axis of which weight.
        widths: How many channels the suspect has in place of each set.
    """

    def __init__(
        self, graph: ChannelGraph, reference: Weights, suspect: Weights
    ) -> None:
        self._graph = graph
        self._shapes = {name: array.shape for name, array in reference.items()}
        self.parts = graph.parts()
        self.widths = {
            number: self._width(number, suspect)
            for number in range(len(graph.channels))
        }
        self._check_shapes(reference, suspect)
        # Where each of the owner's channels is among the suspect's, by the set.
        self._orders = {
            number: np.arange(channels.count)
            for number, channels in enumerate(graph.channels)
            if channels.fixed
        }
        # Which channels have the other sign, by the segment.
        self._signs: dict[int, Floats] = {}
        # What is known of a set or a segment, in short.
        self._digests: dict[tuple[str, int], bytes] = {}

    @property
    def moved(self) -> int:
        """How many channels are in another place."""
        return sum(
            int(np.sum(order != np.arange(len(order))))
            for order in self._orders.values()
        )

    @property
    def flipped(self) -> int:
        """How many channels have the other sign."""
        return sum(int(np.sum(signs < 0)) for signs in self._signs.values())

    @property
    def added(self) -> int:
        """How many neurons the suspect has more; fewer, where it is negative."""
        return sum(
            width - self._graph.channels[number].count
            for number, width in self.widths.items()
        )

    @property
    def changes(self) -> dict[str, int]:
        """All three, by name."""
        return {"moved": self.moved, "flipped": self.flipped, "added": self.added}

    def order(self, number: int) -> Indices | None:
        """Where the channels of a set are; -1 where one is missing."""
        return self._orders.get(number)

    def put(self, number: int, rows: Indices, columns: Indices) -> bool:
        """Says where channels of a set are.

        Returns:
            Whether they are elsewhere than it was known before.
        """
        order = np.full(self._graph.channels[number].count, MISSING)
        order[rows] = columns
        before = self._orders.get(number)
        self._orders[number] = order
        self._digests["order", number] = _digest(order)
        return before is None or not np.array_equal(before, order)

    def turn(self, segment: int, signs: Floats) -> bool:
        """Says which channels of a segment have the other sign.

        Returns:
            Whether they have others than it was known before.
        """
        before = self._signs.get(segment)
        self._signs[segment] = signs
        self._digests["signs", segment] = _digest(signs)
        return before is None or not np.array_equal(before, signs)

    def known(self, name: WeightName) -> Hashable:
        """What is known of a weight's channels; the same value for the same."""
        parts = [one for axis in (-1, -2) for one in self.parts.get((*name, axis), [])]
        return tuple(
            self._digests.get(part)
            for one in parts
            for part in (
                ("order", one.channels),
                *(("signs", segment) for segment in one.segments),
            )
        )

    def knows_sign(self, segment: int) -> bool:
        """Whether a segment's signs are known, or cannot be other ones."""
        return segment in self._signs or not self._graph.segments[segment].may_flip

    def sign(self, segments: Iterable[int], count: int) -> Floats:
        """The product of several segments' signs."""
        signs = np.ones(count)
        for segment in segments:
            signs = signs * self._signs.get(segment, 1.0)
        return signs

    def undone(self, name: WeightName, axis: int, array: Floats) -> Floats | None:
        """A suspect's weight with one axis as the owner has it, if that is known."""
        parts = self.parts.get((*name, axis))
        size = self._shapes[name][axis]
        if parts is None:
            return array if array.shape[axis] == size else None
        if any(part.channels not in self._orders for part in parts):
            return None
        front = np.moveaxis(array, axis, 0)
        result = np.zeros((size, *front.shape[1:]))
        for index, part in enumerate(parts):
            order = self._orders[part.channels]
            there = order != MISSING
            signs = self.sign(part.segments, len(order))[there]
            found = front[self.places(parts, index, suspect=True)[:, order[there]]]
            shape = (-1, *[1] * (found.ndim - 2))
            result[self.places(parts, index)[:, there]] = found * signs.reshape(shape)
        return np.moveaxis(result, 0, axis)

    def places(
        self, parts: Sequence[Part], index: int, suspect: bool = False
    ) -> Indices:
        """Where the channels of a part are along their axis: (repeats, channels)."""
        counts = [
            self.widths[one.channels]
            if suspect
            else self._graph.channels[one.channels].count
            for one in parts
        ]
        offsets = sum(counts) * np.arange(parts[index].repeats)
        return offsets[:, None] + sum(counts[:index]) + np.arange(counts[index])

    def _width(self, number: int, suspect: Weights) -> int:
        """How many channels the suspect has in place of a set."""
        channels = self._graph.channels[number]
        widths = {
            suspect[layer, variable].shape[axis] // parts[0].repeats
            for (layer, variable, axis), parts in self.parts.items()
            # Beside others, how many are whose is not told.
            if (layer, variable) in suspect
            and [one.channels for one in parts] == [number]
        }
        if len(widths) > 1 or (channels.fixed and widths - {channels.count}):
            raise AlignmentError(
                f"Expected a network of the owner's architecture, with layers of "
                f"{channels.count} neurons. Received one with "
                f"{', '.join(map(str, sorted(widths)))} in their place."
            )
        return widths.pop() if widths else channels.count

    def _check_shapes(self, reference: Weights, suspect: Weights) -> None:
        """Refuses weights whose axes do not count what the layers around them do."""
        for name, owners in reference.items():
            if name not in suspect:
                continue
            theirs = suspect[name].shape
            expected = [
                sum(self.widths[part.channels] for part in parts) * parts[0].repeats
                if (parts := self.parts.get((*name, axis - owners.ndim)))
                else size
                for axis, size in enumerate(owners.shape)
            ]
            if list(theirs) != expected:
                raise AlignmentError(
                    f"Expected {'/'.join(name)} of the shape {tuple(expected)}, as the "
                    f"layers around it have it. Received: {theirs}"
                )


def _digest(array: NDArray[Any]) -> bytes:
    return blake2b(array.tobytes(), digest_size=16).digest()
