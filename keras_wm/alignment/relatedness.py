"""Relatedness: whether one network was made from another.

The kernels of one network are compared with their counterparts in the other, without
their scales: as they are, and after alignment. The relatedness is the median of their
cosines, in the better one of these two ways. Fine-tuning, compression and another mark
leave it near 1; that of networks that were trained apart, also for the same task, is
near 0. `benchmarks/relatedness.py` measures these distributions.

An alignment makes also unrelated kernels similar, if it compares the weights whose
cosine is taken. Without the whole kernel it often fails: where the last layer is new,
nothing else shows the order of the channels before it. Therefore each weight of a
kernel serves one purpose. Half of the weights of each filter, chosen at random, show
the order of the filters, and half of those of each input channel the order of the input
channels. The cosine is that of the weights that are in neither half, a quarter of the
kernel. One alignment serves all kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.aligner import Aligner, Alignment
from keras_wm.alignment.channel_graph import WeightName
from keras_wm.alignment.layer_matching import MatchedWeights, match_layers
from keras_wm.alignment.reference import Reference, read_weights
from keras_wm.alignment.similarity import balancing_factors
from keras_wm.errors import AlignmentError
from keras_wm.files import ModelFile
from keras_wm.utils.arrays import Floats

# Networks are related if their median cosine is larger. In `benchmarks/relatedness.py`,
# networks that were trained apart have at most 0.1, and one with 90 % of its weights
# pruned has about 0.5, or 0.25 if its channels were changed, too. In a small network
# such channels cannot be aligned.
RELATED: Final = 0.2
# The cosine of small kernels is large by chance: its spread is 1 / sqrt(weights).
_FEWEST_WEIGHTS = 400

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Relatedness:
    """The cosines of the kernels of two networks.

    Attributes:
        cosines: The cosine of each kernel with its counterpart, by its name.
        problem: The reason why there is none, or an empty string.
    """

    cosines: Mapping[str, float]
    problem: str = ""

    @property
    def figure(self) -> float:
        """The median cosine; 0 if no kernel has a counterpart."""
        return median(self.cosines.values()) if self.cosines else 0.0

    @property
    def is_related(self) -> bool:
        """True if most kernels are alike."""
        return self.figure > RELATED

    def __str__(self) -> str:
        """The figure, and the number of kernels that it rests on."""
        if not self.cosines:
            return f"unknown: {self.problem}"
        count = len(self.cosines)
        kernels = "1 kernel" if count == 1 else f"{count} kernels"
        return f"{self.figure:.2f}, the median cosine of {kernels}"


def relatedness(
    original: Reference, disputed: ModelFile, marked: Collection[str] = ()
) -> Relatedness:
    """Compares the kernels of two networks.

    Args:
        original: The network that the other one may be made from.
        disputed: The other network, an open model.
        marked: Names of kernels of the original that carry a mark. They are left out,
            as long as others remain.

    Returns:
        A `Relatedness`.

    Raises:
        ModelFileError: If a weight cannot be read.
    """
    try:
        matches = match_layers(original, disputed)
    except AlignmentError as error:
        return Relatedness({}, str(error))
    problem = "No kernel of it has a counterpart that is large enough."
    ways: list[Relatedness] = []
    for match in matches:
        names = _compared(original, match, marked)
        try:
            suspect = read_weights(match)
            ways.append(Relatedness(dict(_as_they_are(original, suspect, names))))
            if ways[-1].is_related:
                break
            aligner = Aligner(original.graph, original.values, suspect)
            ways.append(Relatedness(dict(_aligned(_HalfAlignment(aligner), names))))
        except AlignmentError as error:
            # Its weights are not finite, or its shapes contradict each other.
            problem = str(error)
    found = [way for way in ways if way.cosines]
    default = Relatedness({}, problem)
    return max(found, key=lambda way: way.figure, default=default)


def _compared(
    reference: Reference, match: MatchedWeights, marked: Collection[str]
) -> list[WeightName]:
    """Returns the names of the kernels to compare: unmarked ones if there are any."""
    names = [
        (kernel.layer, kernel.variable)
        for kernel in reference.kernels
        if (kernel.layer, kernel.variable) in match
        and prod(kernel.shape) >= _FEWEST_WEIGHTS
    ]
    return [name for name in names if "/".join(name) not in marked] or names


def _as_they_are(
    original: Reference, suspect: Mapping[WeightName, Floats], names: list[WeightName]
) -> Iterator[tuple[str, float]]:
    """Yields the cosines of the kernels in the order in which their channels are."""
    for name in names:
        kernel, other = original.values[name], suspect[name]
        if kernel.shape == other.shape:
            everything = np.ones(kernel.shape, bool)
            yield "/".join(name), _cosine(kernel, other, everything)


def _aligned(
    alignment: _HalfAlignment, names: list[WeightName]
) -> Iterator[tuple[str, float]]:
    """Yields the cosines of the weights that the alignment has not used."""
    for name in names:
        unused = alignment.unused(name)
        if np.count_nonzero(unused) < _FEWEST_WEIGHTS:
            continue
        try:
            aligned = alignment.aligned(name)
        except AlignmentError:
            # Nothing shows the order of its channels, so it cannot be found alike.
            continue
        yield "/".join(name), _cosine(alignment.reference(name), aligned, unused)


class _HalfAlignment(Alignment):
    """An alignment that compares half of each channel's weights in each kernel.

    Args:
        aligner: Aligner of the two networks.
    """

    # For unrelated networks, every pass finds another order. More passes would take
    # minutes for a ResNet-50 and find no more.
    passes = 4

    def __init__(self, aligner: Aligner) -> None:
        super().__init__(aligner, ())

    def reference(self, name: WeightName) -> Floats:
        """Returns a weight of the reference."""
        return self._reference[name]

    def unused(self, name: WeightName) -> Mask:
        """Returns the weights of a kernel that are not compared, of its shape."""
        shape = self._reference[name].shape
        rows = _half(shape[:-1])[..., None]
        columns = _half((*shape[:-2], shape[-1]))[..., None, :]
        return np.logical_not(rows | columns)

    def _comparable(self, name: WeightName, axis: int) -> tuple[Floats, Floats] | None:
        pair = super()._comparable(name, axis)
        if pair is None or pair[0].ndim == 1:
            return pair
        reference, suspect = pair
        # The first axis is that of the channels, the last one the other axis.
        used = _half(reference.shape[1:])
        return reference[:, used], suspect[:, used]


@lru_cache
def _half(shape: tuple[int, ...]) -> Mask:
    """Returns a random half of the positions in an array, at least one."""
    size = prod(shape)
    used = np.zeros(size, bool)
    # The same half of the same shape, in both networks and in each step.
    used[np.random.default_rng(size).permutation(size)[: -(-size // 2)]] = True
    return used.reshape(shape)


def _cosine(kernel: Floats, other: Floats, where: Mask) -> float:
    """Returns the cosine of some weights of two kernels, without their scales."""
    first, second = _balanced(kernel)[where], _balanced(other)[where]
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.vdot(first, second) / norms) if norms > 0 else 0.0


def _balanced(kernel: Floats) -> Floats:
    factors = balancing_factors(kernel)
    balanced: Floats = kernel * factors[-2] * factors[-1]
    return balanced
