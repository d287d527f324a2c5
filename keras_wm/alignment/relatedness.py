"""Relatedness: whether one network was made from another.

Each kernel of one network is aligned with its counterpart by all *other* weights, and
the cosine of the two is taken, without their scales. The kernel itself does not take
part in the alignment, so the cosine of unrelated kernels is about 0. The relatedness is
the median cosine. Fine-tuning, pruning, quantization and a second mark leave it near 1;
networks that were trained apart, also for the same task, are near 0.
`benchmarks/relatedness.py` measures these distributions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from statistics import median
from typing import Final

import numpy as np

from keras_wm.alignment.aligner import Aligner
from keras_wm.alignment.channel_graph import WeightName
from keras_wm.alignment.layer_matching import MatchedWeights, match_layers
from keras_wm.alignment.reference import Reference, read_weights
from keras_wm.alignment.similarity import balancing_factors
from keras_wm.errors import AlignmentError
from keras_wm.files import ModelFile
from keras_wm.utils.arrays import Floats

# Networks are related if their median cosine is larger.
RELATED: Final = 0.5
# The cosine of small kernels is large by chance: its spread is 1 / sqrt(weights).
_FEWEST_WEIGHTS = 100


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
    problem = ""
    best: dict[str, float] = {}
    for match in matches:
        cosines: dict[str, float] = {}
        aligner = Aligner(original.graph, original.values, read_weights(match))
        for name in _compared(original, match, marked):
            try:
                aligned = aligner.align_without(name).aligned(name)
            except AlignmentError as error:
                problem = str(error)
                continue
            cosines["/".join(name)] = _cosine(original.values[name], aligned)
        if not best or (cosines and median(cosines.values()) > median(best.values())):
            best = cosines
    return Relatedness(best, problem or "No kernel of it has a counterpart.")


def _compared(
    reference: Reference, match: MatchedWeights, marked: Collection[str]
) -> Iterator[WeightName]:
    """Yields the names of the kernels to compare: unmarked ones if there are any."""
    names = [
        (kernel.layer, kernel.variable)
        for kernel in reference.kernels
        if (kernel.layer, kernel.variable) in match
        and prod(kernel.shape) >= _FEWEST_WEIGHTS
    ]
    unmarked = [name for name in names if "/".join(name) not in marked]
    yield from unmarked or names


def _cosine(kernel: Floats, aligned: Floats) -> float:
    """Returns the cosine of a kernel without its scales and an aligned one."""
    factors = balancing_factors(kernel)
    balanced = kernel * factors[-2] * factors[-1]
    norms = np.linalg.norm(balanced) * np.linalg.norm(aligned)
    return float(np.vdot(balanced, aligned) / norms) if norms > 0 else 0.0
