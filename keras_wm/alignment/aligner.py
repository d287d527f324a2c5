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
from collections.abc import Callable, Collection, Hashable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np

from keras_wm.alignment.channel_graph import ChannelGraph
from keras_wm.alignment.correspondence import (
    MISSING,
    Correspondence,
    WeightName,
    Weights,
)
from keras_wm.alignment.similarity import (
    Indices,
    Stretch,
    balancing_factors,
    channel_vectors,
    other_axis,
    sign_certainty,
)
from keras_wm.errors import AlignmentError
from keras_wm.utils.arrays import Floats

_MOST_SWEEPS = 10
# A square of a cosine; no two channels are told to be the same for sure.
_MOST_SHARED = 0.9999

Answer = TypeVar("Answer")


class Aligner:
    """Aligns a suspect with the owner's network, as often as there are marked weights.

    Most of what one alignment compares, another has compared before, with the same
    channels around it: what came of it is kept.

    Args:
        graph: The channels of the owner's network.
        reference: Its weights.
        suspect: The suspect's weights, under the same names.
    """

    def __init__(
        self, graph: ChannelGraph, reference: Weights, suspect: Weights
    ) -> None:
        self.graph = graph
        self.reference, self.suspect = reference, suspect
        self.owners_factors = {
            name: balancing_factors(array)
            for name, array in reference.items()
            if array.ndim > 1
        }
        self._answers: dict[Hashable, object] = {}

    def align_without(self, *held_out: WeightName) -> Alignment:
        """An alignment by all weights but some.

        Args:
            held_out: The weights that are to be aligned by the others.

        Raises:
            AlignmentError: If the suspect is of another architecture.
        """
        return Alignment(self, held_out)

    def _memoised(self, question: Hashable, answer: Callable[[], Answer]) -> Answer:
        """Answers a question that was not asked before; else with what was said."""
        if question not in self._answers:
            self._answers[question] = answer()
        return self._answers[question]  # type: ignore[return-value]


class Alignment:
    """Where the channels of the owner's network are in a suspect.

    Args:
        aligner: The two networks.
        held_out: The weights that are to be aligned by the others.

    Attributes:
        correspondence: Where they are.
    """

    def __init__(self, aligner: Aligner, held_out: Collection[WeightName]) -> None:
        self._aligner = aligner
        self._graph = aligner.graph
        self._reference, self._suspect = aligner.reference, aligner.suspect
        self.correspondence = Correspondence(
            self._graph, self._reference, self._suspect
        )
        # The weights that tell of a set of channels, and which of their axes counts it.
        self._telling: dict[int, list[tuple[WeightName, int]]] = {
            number: [] for number in range(len(self._graph.channels))
        }
        for (layer, variable, axis), parts in self.correspondence.parts.items():
            name = (layer, variable)
            if name not in held_out and name in self._suspect:
                for number in {part.channels for part in parts}:
                    self._telling[number].append((name, axis))
        self._align()

    def aligned(self, name: WeightName) -> Floats:
        """A weight of the suspect, with its channels as the owner has them.

        Each channel gets the norm that it has in the owner's weight, so that no
        scaling is left.
        """
        array = self._suspect[name]
        for axis in (-1, -2):
            undone = self.correspondence.undone(name, axis, array)
            if undone is None:
                raise AlignmentError(
                    f"Nothing beside it tells how {'/'.join(name)} is to be aligned."
                )
            array = undone
        theirs, owners = balancing_factors(array), self._aligner.owners_factors[name]
        result: Floats = array * (theirs[-2] / owners[-2]) * (theirs[-1] / owners[-1])
        return result

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
        for (layer, variable, axis), parts in self.correspondence.parts.items():
            other = self.correspondence.parts.get(
                (layer, variable, other_axis(axis)), []
            )
            for part in parts:
                found[part.channels].update(one.channels for one in other)
        return found

    def _match(self, number: int) -> bool:
        """Finds where the channels of a set are.

        Returns:
            Whether they are elsewhere than it was known before.
        """
        if self._graph.channels[number].fixed:
            return False
        pairs = self._aligner._memoised(
            ("match", number, self._known(number)), partial(self._pairs, number)
        )
        return pairs is not None and self.correspondence.put(number, *pairs)

    def _known(self, number: int) -> Hashable:
        """All that what is told of a set depends on, but for the weights themselves."""
        return tuple(
            (name, self.correspondence.known(name)) for name, _ in self._telling[number]
        )

    def _pairs(self, number: int) -> tuple[Indices, Indices] | None:
        """The owner's channels of a set and the suspect's, by all weights."""
        from scipy.optimize import linear_sum_assignment

        count, width = (
            self._graph.channels[number].count,
            self.correspondence.widths[number],
        )
        evidence = np.zeros((count, width), np.float32)
        for one in self._stretches(number):
            size = one.owners.shape[1]
            # All vectors of a single weight have the same direction.
            if one.matrix and size > 1:
                shared = one.owners @ one.theirs.T
                if self._keeps_sign(one):
                    shared = np.maximum(shared, 0)
                # The log-likelihood of vectors that have so much in common.
                evidence -= size / 2 * np.log1p(-np.minimum(shared**2, _MOST_SHARED))
        return linear_sum_assignment(-evidence) if evidence.any() else None

    def _keeps_sign(self, one: Stretch) -> bool:
        """Whether a channel is not the owner's if it is the opposite of it."""
        return not any(
            self._graph.segments[each].may_flip for each in one.part.segments
        ) and all(map(self.correspondence.knows_sign, one.across))

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
        order = self.correspondence.order(number)
        if not free or order is None:
            return False
        changed = False
        for segment in free:
            evidence = self._aligner._memoised(
                ("turn", segment, self._known(number)),
                partial(self._likeness, segment, order),
            )
            if evidence.any():
                signs = np.where(evidence < 0, -1.0, 1.0)
                changed |= self.correspondence.turn(segment, signs)
        return changed

    def _likeness(self, segment: int, order: Indices) -> Floats:
        """How much more like the owner's than their opposites a segment's channels are.

        By the weights whose other signs are known.
        """
        there = order != MISSING
        evidence = np.zeros(len(order))
        for one in self._stretches(self._graph.segments[segment].channels):
            others = [each for each in one.part.segments if each != segment]
            if segment in one.part.segments and all(
                map(self.correspondence.knows_sign, [*others, *one.across])
            ):
                products = one.owners[there] * one.theirs[order[there]]
                signs = self.correspondence.sign(others, len(order))[there]
                evidence[there] += one.certainty[there] * products.sum(axis=1) * signs
        return evidence

    def _stretches(self, number: int) -> Iterator[Stretch]:
        """Every stretch of a weight that counts a set, as far as it can be compared."""
        for name, axis in self._telling[number]:
            parts = self.correspondence.parts[*name, axis]
            pair = self._comparable(name, axis)
            if pair is None:
                continue
            matrix = self._reference[name].ndim > 1
            across = self.correspondence.parts.get((*name, other_axis(axis)), [])
            signs = [one for each in across if matrix for one in each.segments]
            for index, part in enumerate(parts):
                if part.channels == number:
                    places = self.correspondence.places(parts, index)
                    owners = channel_vectors(pair[0], places)
                    there = self.correspondence.places(parts, index, suspect=True)
                    certainty = (
                        np.full(len(owners), float(owners.shape[1]))
                        if matrix
                        else sign_certainty(pair[0][places][0])
                    )
                    theirs = channel_vectors(pair[1], there)
                    yield Stretch(part, signs, owners, theirs, matrix, certainty)

    def _comparable(self, name: WeightName, axis: int) -> tuple[Floats, Floats] | None:
        """The owner's weight and the suspect's, with an axis in front.

        In the other one, they have the same order and scale.
        """
        owners, theirs = self._reference[name], self._suspect[name]
        if owners.ndim > 1:
            other = self.correspondence.undone(name, other_axis(axis), theirs)
            if other is None:
                return None
            # Neurons that were added would tell in the norms.
            both = self.correspondence.undone(name, axis, other)
            factors = balancing_factors(other if both is None else both)
            theirs = other * factors[other_axis(axis)]
            owners = owners * self._aligner.owners_factors[name][other_axis(axis)]
        return np.moveaxis(owners, axis, 0), np.moveaxis(theirs, axis, 0)
