"""Alignment: undoing changes of channels that do not change a network's function.

An attacker can hide a mark by permuting the channels of a layer, scaling them, flipping
their signs or adding neurons. The next layers are changed to match, so that the network
computes the same as before. The aligner compares the suspect's weights with the
reference's, finds these changes and undoes them. It uses no key.

The unknowns are the order of each channel set and the signs of each segment (see
`channel_graph`). They are determined as follows:

1. At first only the fixed channel sets are known, such as the inputs and outputs of the
   network.
2. For each channel set, all weights with an axis of this set are compared. In each of
   them, the other axis is first put into the reference's order and signs, as far as
   these are known, and all scales are removed. Every channel is then a unit vector of n
   values, in the reference and in the suspect.
3. The evidence that two channels are the same is the log-likelihood ratio for normal
   vectors with their cosine r as correlation, against independent ones:
   -n / 2 log(1 - r^2). It is summed over all weights. The order is the one with the
   largest total evidence, a linear assignment problem.
4. A channel was flipped if its weighted mean cosine with its counterpart is negative.
5. A new order or new signs change the comparisons of the neighbouring channel sets.
   These are examined again, until nothing changes any more.
6. To align a kernel, both of its axes are put into the reference's order and signs. Its
   scales are removed: all slices along one of these axes get the same RMS.

The p-value of the aligned kernel is exact if nothing in steps 1 to 6 depends on the
key's arrays for this kernel. There are two kinds of references:

- The network as it was before the first marked step (a checkpoint). It depends on
  nothing of the key, so all of its weights are used, those of the tested kernel too.
- The owner's marked network. Its kernels that carry the mark take no part in steps 2
  to 5, see `held_out`. If the suspect's kernel were arranged to be similar to a marked
  one, the kernel of every network would seem to carry a little of the mark: with the
  papers' mark, at p-values of 1e-8 and below. The alignment is therefore determined by
  *other* weights: by the channels of the layers before, behind and next to the kernel.

Step 6 uses nothing of the reference, because the norms of a marked kernel know the key
as well: if they were copied, an unmarked network that was branched from the same
weights would have p < 0.01 two to four times as often as it should
(`benchmarks/aligned_false_alarms.py`). The norms of a checkpoint do not, but an equal
norm for all channels leaves more of the mark.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator
from functools import partial
from typing import TypeVar

import numpy as np

from keras_wm.alignment.channel_graph import AxisName, ChannelGraph, WeightName
from keras_wm.alignment.correspondence import MISSING, Correspondence, Weights
from keras_wm.alignment.similarity import (
    ChannelComparison,
    balancing_factors,
    other_axis,
    sign_certainty,
    unit_vectors,
)
from keras_wm.errors import AlignmentError
from keras_wm.utils.arrays import Floats, Indices

_MAX_PASSES = 10
# Limit of r^2. Without it, the evidence for two equal vectors would be infinite.
_MAX_SQUARED_COSINE = 0.9999

Result = TypeVar("Result")


class Aligner:
    """Aligns a suspect with the reference model, once for each kernel that is tested.

    Two alignments differ only in the kernels that are left out, so most comparisons
    are the same in both. Their results are kept.

    Args:
        graph: Channel graph of the reference model.
        reference: Weights of the reference model.
        suspect: The suspect's weights, by the same names.
    """

    def __init__(
        self, graph: ChannelGraph, reference: Weights, suspect: Weights
    ) -> None:
        self.graph = graph
        self.reference, self.suspect = reference, suspect
        self.reference_factors = {
            name: balancing_factors(array)
            for name, array in reference.items()
            if array.ndim > 1
        }
        self._results: dict[Hashable, object] = {}

    def align_without(self, *held_out: WeightName) -> Alignment:
        """Returns the alignment that all weights but some determine.

        Args:
            *held_out: Names of the weights that are not used.

        Raises:
            AlignmentError: If the suspect has another architecture.
        """
        return Alignment(self, held_out)

    def _memoised(self, name: Hashable, compute: Callable[[], Result]) -> Result:
        """Returns the result with this name, and computes it at the first call."""
        if name not in self._results:
            self._results[name] = compute()
        return self._results[name]  # type: ignore[return-value]


class Alignment:
    """An alignment of a suspect with the reference model.

    Args:
        aligner: Aligner of the two networks.
        held_out: Names of the weights that are not used.

    Attributes:
        correspondence: The order and signs of the suspect's channels.
        passes: Largest number of times that every channel set is examined.
    """

    passes = _MAX_PASSES

    def __init__(self, aligner: Aligner, held_out: Collection[WeightName]) -> None:
        self._aligner = aligner
        self._graph = aligner.graph
        self._reference, self._suspect = aligner.reference, aligner.suspect
        self.correspondence = Correspondence(
            self._graph, self._reference, self._suspect
        )
        # The weights that are compared for each channel set, with the set's axis.
        self._evidence: dict[int, list[AxisName]] = defaultdict(list)
        for (name, axis), parts in self.correspondence.parts.items():
            if name not in held_out and name in self._suspect:
                for set_id in {part.set_id for part in parts}:
                    self._evidence[set_id].append((name, axis))
        self._align()

    def aligned(self, name: WeightName) -> Floats:
        """Returns a weight of the suspect with the reference's order and signs.

        It has no scales: all slices along one of its last two axes have the same RMS,
        except slices of zeros.

        Args:
            name: Name of a weight with 2 or more axes.

        Raises:
            AlignmentError: If the weights that are used do not determine the order.
        """
        array = self._suspect[name]
        for axis in (-1, -2):
            restored = self.correspondence.restored(name, axis, array)
            if restored is None:
                raise AlignmentError(
                    f"Cannot align {'/'.join(name)}: no other weight shows the order "
                    "of its channels."
                )
            array = restored
        factors = balancing_factors(array)
        balanced: Floats = array * factors[-2] * factors[-1]
        return balanced

    def _align(self) -> None:
        """Updates each channel set until nothing around it changes."""
        neighbours = self._neighbours()
        waiting = set(neighbours)
        for _ in range(self.passes):
            for set_id in sorted(waiting):
                waiting.remove(set_id)
                # `+` instead of `or`, because both must run.
                if self._update_order(set_id) + self._update_signs(set_id):
                    waiting |= neighbours[set_id]
            if not waiting:
                return

    def _neighbours(self) -> dict[int, set[int]]:
        """Returns for each channel set those along the other axis of a weight.

        A set with several segments that can flip is its own neighbour, because the
        signs of one segment help to find those of another.
        """
        free = Counter(
            segment.set_id for segment in self._graph.segments if segment.may_flip
        )
        neighbours = {
            set_id: {set_id} if free[set_id] > 1 else set()
            for set_id in range(len(self._graph.sets))
        }
        all_parts = self.correspondence.parts
        for (name, axis), parts in all_parts.items():
            across = all_parts.get((name, other_axis(axis)), [])
            other_sets = {part.set_id for part in across}
            for part in parts:
                neighbours[part.set_id] |= other_sets
        return neighbours

    def _state(self, set_id: int) -> Hashable:
        """Returns a value that determines all comparisons of a channel set."""
        return tuple(
            (name, self.correspondence.fingerprint(name))
            for name, _ in self._evidence[set_id]
        )

    def _update_order(self, set_id: int) -> bool:
        """Determines the order of a channel set; returns whether it has changed."""
        if self._graph.sets[set_id].fixed:
            return False
        pairs = self._aligner._memoised(
            ("order", set_id, self._state(set_id)), partial(self._assign, set_id)
        )
        return pairs is not None and self.correspondence.set_order(set_id, *pairs)

    def _assign(self, set_id: int) -> tuple[Indices, Indices] | None:
        """Returns pairs of the reference's and the suspect's channels of a set.

        Returns `None` if nothing could be compared.
        """
        from scipy.optimize import linear_sum_assignment

        count = self._graph.sets[set_id].count
        width = self.correspondence.widths[set_id]
        evidence = np.zeros((count, width), np.float32)
        for comparison in self._comparisons(set_id):
            size = comparison.reference.shape[1]
            # A unit vector of one value is the same for all channels, except its sign.
            if size > 1:
                cosines = comparison.reference @ comparison.suspect.T
                if self._signs_known(comparison):
                    # The opposite of a channel is then not the same channel.
                    cosines = np.maximum(cosines, 0)
                squares = np.minimum(cosines**2, _MAX_SQUARED_COSINE)
                evidence -= size / 2 * np.log1p(-squares)
        return linear_sum_assignment(-evidence) if evidence.any() else None

    def _signs_known(self, comparison: ChannelComparison) -> bool:
        """Returns whether equal channels must also have the same sign."""
        can_flip = any(
            self._graph.segments[segment_id].may_flip
            for segment_id in comparison.part.segment_ids
        )
        return not can_flip and all(
            map(self.correspondence.sign_known, comparison.other_segments)
        )

    def _update_signs(self, set_id: int) -> bool:
        """Determines the signs of a channel set; returns whether they have changed."""
        order = self.correspondence.orders.get(set_id)
        if order is None:
            return False
        changed = False
        for segment_id, segment in enumerate(self._graph.segments):
            if segment.set_id != set_id or not segment.may_flip:
                continue
            evidence = self._aligner._memoised(
                ("signs", segment_id, self._state(set_id)),
                partial(self._sign_evidence, segment_id, order),
            )
            if evidence.any():
                signs = np.where(evidence < 0, -1.0, 1.0)
                changed |= self.correspondence.set_signs(segment_id, signs)
        return changed

    def _sign_evidence(self, segment_id: int, order: Indices) -> Floats:
        """Returns a value for each channel that is negative if it was flipped.

        It sums the cosines of all weights that have the segment's signs and, besides
        them, only signs that are known.
        """
        present = order != MISSING
        positions = order[present]
        evidence = np.zeros(len(order))
        for comparison in self._comparisons(self._graph.segments[segment_id].set_id):
            segment_ids = comparison.part.segment_ids
            others = [number for number in segment_ids if number != segment_id]
            required = [*others, *comparison.other_segments]
            if segment_id in segment_ids and all(
                map(self.correspondence.sign_known, required)
            ):
                products = comparison.reference[present] * comparison.suspect[positions]
                signs = self.correspondence.signs(others, len(order))[present]
                certainty = comparison.certainty[present]
                evidence[present] += certainty * products.sum(axis=1) * signs
        return evidence

    def _comparisons(self, set_id: int) -> Iterator[ChannelComparison]:
        """Yields a comparison for each part of a weight that belongs to a set.

        Weights whose other axis is unknown are left out.
        """
        for name, axis in self._evidence[set_id]:
            parts = self.correspondence.parts[name, axis]
            pair = self._comparable(name, axis)
            if pair is None:
                continue
            across = self.correspondence.parts.get((name, other_axis(axis)), [])
            other_segments = [
                segment_id for part in across for segment_id in part.segment_ids
            ]
            for index, part in enumerate(parts):
                if part.set_id == set_id:
                    positions = self.correspondence.positions
                    reference = pair[0][positions(parts, index)]
                    suspect = pair[1][positions(parts, index, suspect=True)]
                    yield ChannelComparison(
                        part,
                        other_segments,
                        unit_vectors(reference),
                        unit_vectors(suspect),
                        sign_certainty(reference),
                    )

    def _comparable(self, name: WeightName, axis: int) -> tuple[Floats, Floats] | None:
        """Returns the reference's and the suspect's weight, ready for comparison.

        The given axis is moved to the front. The other axis has the reference's order
        and signs, and no scales. `None` if its order is unknown.
        """
        reference, suspect = self._reference[name], self._suspect[name]
        if reference.ndim > 1:
            other = other_axis(axis)
            restored = self.correspondence.restored(name, other, suspect)
            if restored is None:
                return None
            # Without the neurons that were added, which would change the norms.
            both = self.correspondence.restored(name, axis, restored)
            factors = balancing_factors(restored if both is None else both)
            suspect = restored * factors[other]
            reference = reference * self._aligner.reference_factors[name][other]
        return np.moveaxis(reference, axis, 0), np.moveaxis(suspect, axis, 0)
