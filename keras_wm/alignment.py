"""Undoing what hides a mark without changing what the network computes.

Channels that were reordered, scaled or turned in sign, and neurons that were added, are
found by comparing a suspect's weights with the owner's own. Only weights are compared,
never a key.

The owner's weights carry the mark. An alignment that looked for the likeness of the
marked kernel itself would find a little of the mark in any network: with the papers'
mark, p-values of 1e-8 and below. How a kernel is to be aligned is therefore told by
all *other* weights: how the layers before, behind and beside it have their channels
ordered. Of the kernel itself only the norms are used, which know nothing of signs. So
the scores stay what they are without alignment: of an unmarked network, independent
standard normal deviates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from keras_wm.channels import ChannelGraph, Part
from keras_wm.comparing import (
    Floats,
    Indices,
    Stretch,
    balancing_factors,
    channel_vectors,
    other_axis,
    sign_certainty,
)
from keras_wm.errors import AlignmentError

Name = tuple[str, str]
# By the layer's name and the variable's.
Weights = Mapping[Name, Floats]

_MOST_SWEEPS = 10
_MISSING = -1
# A square of a cosine; no two channels are told to be the same for sure.
_MOST_SHARED = 0.9999


class Alignment:
    """Where the channels of the owner's network are in a suspect.

    Args:
        graph: The channels of the owner's network.
        reference: Its weights.
        suspect: The suspect's weights, under the same names.
        held_out: The weights that are to be aligned by the others.

    Raises:
        AlignmentError: If the suspect is of another architecture.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        reference: Weights,
        suspect: Weights,
        held_out: Collection[Name],
    ) -> None:
        self._graph = graph
        self._parts = graph.parts()
        self._reference, self._suspect = reference, suspect
        self._compared = {
            name for name in reference if name not in held_out and name in suspect
        }
        # How many channels the suspect has in place of each set; where each of the
        # owner's is among them; and which segments' channels have the other sign.
        self._widths = {
            number: self._width(number) for number in range(len(graph.channels))
        }
        self._check_shapes()
        self._orders = {
            number: np.arange(channels.count)
            for number, channels in enumerate(graph.channels)
            if channels.fixed
        }
        self._signs: dict[int, Floats] = {}
        self._owners_factors = {
            name: balancing_factors(array)
            for name, array in reference.items()
            if array.ndim > 1
        }
        self._align()

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
            for number, width in self._widths.items()
        )

    @property
    def undone(self) -> dict[str, int]:
        """All three, by name."""
        return {"moved": self.moved, "flipped": self.flipped, "added": self.added}

    def aligned(self, name: Name) -> Floats:
        """A weight of the suspect, with its channels as the owner has them.

        Each channel gets the norm that it has in the owner's weight, so that no
        scaling is left.
        """
        array = self._suspect[name]
        for axis in (-1, -2):
            undone = self._undone(name, axis, array)
            if undone is None:
                raise AlignmentError(
                    f"Nothing beside it tells how {'/'.join(name)} is to be aligned."
                )
            array = undone
        theirs, owners = balancing_factors(array), self._owners_factors[name]
        result: Floats = array * (theirs[-2] / owners[-2]) * (theirs[-1] / owners[-1])
        return result

    def _width(self, number: int) -> int:
        """How many channels the suspect has in place of a set."""
        channels = self._graph.channels[number]
        widths = {
            self._suspect[layer, variable].shape[axis] // parts[0].repeats
            for (layer, variable, axis), parts in self._parts.items()
            # Beside others, how many are whose is not told.
            if (layer, variable) in self._suspect
            and [one.channels for one in parts] == [number]
        }
        if len(widths) > 1 or (channels.fixed and widths - {channels.count}):
            raise AlignmentError(
                f"Expected a network of the owner's architecture, with layers of "
                f"{channels.count} neurons. Received one with "
                f"{', '.join(map(str, sorted(widths)))} in their place."
            )
        return widths.pop() if widths else channels.count

    def _check_shapes(self) -> None:
        """Refuses weights whose axes do not count what the layers around them do."""
        for name, owners in self._reference.items():
            if name not in self._suspect:
                continue
            theirs = self._suspect[name].shape
            expected = [
                sum(self._widths[part.channels] for part in parts) * parts[0].repeats
                if (parts := self._parts.get((*name, axis - owners.ndim)))
                else size
                for axis, size in enumerate(owners.shape)
            ]
            if list(theirs) != expected:
                raise AlignmentError(
                    f"Expected {'/'.join(name)} of the shape {tuple(expected)}, as the "
                    f"layers around it have it. Received: {theirs}"
                )

    def _align(self) -> None:
        """Looks at each set of channels again until nothing around it changes."""
        beside = self._neighbours()
        waiting = set(beside)
        for _ in range(_MOST_SWEEPS):
            for number in sorted(waiting):
                waiting.remove(number)
                # Not `|`, which would leave out the second.
                if self._match(number) + self._turn(number):
                    waiting |= beside[number]
            if not waiting:
                return

    def _neighbours(self) -> dict[int, set[int]]:
        """For each set, those that are counted along the other axis of a weight.

        And itself, where the signs of one of its segments tell those of another.
        """
        free = Counter(one.channels for one in self._graph.segments if one.may_flip)
        found = {
            number: {number} if free[number] > 1 else set()
            for number in range(len(self._graph.channels))
        }
        for (layer, variable, axis), parts in self._parts.items():
            other = self._parts.get((layer, variable, other_axis(axis)), [])
            for part in parts:
                found[part.channels].update(one.channels for one in other)
        return found

    def _match(self, number: int) -> bool:
        """Finds where the channels of a set are, by all weights that count them.

        Returns:
            Whether they are elsewhere than it was known before.
        """
        from scipy.optimize import linear_sum_assignment

        if self._graph.channels[number].fixed:
            return False
        count, width = self._graph.channels[number].count, self._widths[number]
        evidence = np.zeros((count, width), np.float32)
        for one in self._stretches(number):
            if one.matrix:
                shared = one.owners @ one.theirs.T
                if self._keeps_sign(one):
                    shared = np.maximum(shared, 0)
                # The log-likelihood of vectors that have so much in common.
                size = one.owners.shape[1]
                evidence -= size / 2 * np.log1p(-np.minimum(shared**2, _MOST_SHARED))
        if not evidence.any():
            return False
        rows, columns = linear_sum_assignment(-evidence)
        order = np.full(count, _MISSING)
        order[rows] = columns
        before = self._orders.get(number)
        self._orders[number] = order
        return before is None or not np.array_equal(before, order)

    def _keeps_sign(self, one: Stretch) -> bool:
        """Whether a channel is not the owner's if it is the opposite of it."""
        return not any(
            self._graph.segments[each].may_flip for each in one.part.segments
        ) and all(map(self._knows_sign, one.across))

    def _turn(self, number: int) -> bool:
        """Finds which channels of a set have the other sign.

        Returns:
            Whether they have others than it was known before.
        """
        free = [
            segment
            for segment, one in enumerate(self._graph.segments)
            if one.channels == number and one.may_flip
        ]
        if not free or number not in self._orders:
            return False
        stretches = list(self._stretches(number))
        changed = False
        for segment in free:
            evidence = self._likeness(number, segment, stretches)
            if evidence.any():
                signs = np.where(evidence < 0, -1.0, 1.0)
                before = self._signs.get(segment)
                changed |= before is None or not np.array_equal(before, signs)
                self._signs[segment] = signs
        return changed

    def _likeness(
        self, number: int, segment: int, stretches: Iterable[Stretch]
    ) -> Floats:
        """How much more like the owner's than their opposites a segment's channels are.

        By the weights whose other signs are known.
        """
        order = self._orders[number]
        there = order != _MISSING
        evidence = np.zeros(len(order))
        for one in stretches:
            others = [each for each in one.part.segments if each != segment]
            if segment in one.part.segments and all(
                map(self._knows_sign, [*others, *one.across])
            ):
                products = one.owners[there] * one.theirs[order[there]]
                cosines = products.sum(axis=1) * self._sign(others, len(order))[there]
                evidence[there] += one.certainty[there] * cosines
        return evidence

    def _knows_sign(self, segment: int) -> bool:
        return segment in self._signs or not self._graph.segments[segment].may_flip

    def _sign(self, segments: Iterable[int], count: int) -> Floats:
        """The product of several segments' signs."""
        signs = np.ones(count)
        for segment in segments:
            signs = signs * self._signs.get(segment, 1.0)
        return signs

    def _stretches(self, number: int) -> Iterator[Stretch]:
        """Every stretch of a weight that counts a set, as far as it can be compared."""
        for (layer, variable, axis), parts in self._parts.items():
            name = (layer, variable)
            if name not in self._compared or number not in {p.channels for p in parts}:
                continue
            pair = self._comparable(name, axis)
            if pair is None:
                continue
            matrix = self._reference[name].ndim > 1
            across = self._parts.get((*name, other_axis(axis)), []) if matrix else []
            for index, part in enumerate(parts):
                if part.channels == number:
                    owners = channel_vectors(pair[0], self._places(parts, index))
                    theirs = channel_vectors(pair[1], self._places(parts, index, True))
                    signs = [one for each in across for one in each.segments]
                    certainty = (
                        np.full(len(owners), float(owners.shape[1]))
                        if matrix
                        else sign_certainty(pair[0][self._places(parts, index)][0])
                    )
                    yield Stretch(part, signs, owners, theirs, matrix, certainty)

    def _comparable(self, name: Name, axis: int) -> tuple[Floats, Floats] | None:
        """The owner's weight and the suspect's, with an axis in front.

        In the other one, they have the same order and scale.
        """
        owners, theirs = self._reference[name], self._suspect[name]
        if owners.ndim > 1:
            other = self._undone(name, other_axis(axis), theirs)
            if other is None:
                return None
            # Neurons that were added would tell in the norms.
            both = self._undone(name, axis, other)
            factors = balancing_factors(other if both is None else both)
            theirs = other * factors[other_axis(axis)]
            owners = owners * self._owners_factors[name][other_axis(axis)]
        return np.moveaxis(owners, axis, 0), np.moveaxis(theirs, axis, 0)

    def _undone(self, name: Name, axis: int, array: Floats) -> Floats | None:
        """A suspect's weight with one axis as the owner has it, if that is known."""
        parts = self._parts.get((*name, axis))
        size = self._reference[name].shape[axis]
        if parts is None:
            return array if array.shape[axis] == size else None
        if any(part.channels not in self._orders for part in parts):
            return None
        front = np.moveaxis(array, axis, 0)
        result = np.zeros((size, *front.shape[1:]))
        for index, part in enumerate(parts):
            order = self._orders[part.channels]
            there = order != _MISSING
            signs = self._sign(part.segments, len(order))[there]
            found = front[self._places(parts, index, True)[:, order[there]]]
            shape = (-1, *[1] * (found.ndim - 2))
            result[self._places(parts, index)[:, there]] = found * signs.reshape(shape)
        return np.moveaxis(result, 0, axis)

    def _places(
        self, parts: Sequence[Part], index: int, suspect: bool = False
    ) -> Indices:
        """Where the channels of a part are along their axis: (repeats, channels)."""
        counts = [
            self._widths[one.channels]
            if suspect
            else self._graph.channels[one.channels].count
            for one in parts
        ]
        offsets = sum(counts) * np.arange(parts[index].repeats)
        return offsets[:, None] + sum(counts[:index]) + np.arange(counts[index])
