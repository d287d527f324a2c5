r"""What somebody without a key can see of a kernel, in numbers.

A mark that is read through the mean filter widens it, and with it the weights
(Wang & Kerschbaum, ICASSP 2019); one that is spread over the filters can show in the
singular values, which of random weights end at an edge (Marchenko & Pastur 1967).

Every number but `"scale"` is free of the weights' scale. W is the kernel as a matrix
of M weights by L filters, s its standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arrays import Floats

# Weights below this share of s are called small; of normal ones about 8 % are.
_SMALL = 0.1
_WEIGHT_QUANTILES, _OTHER_QUANTILES = 33, 17


def kernel_statistics(kernel: ArrayLike) -> dict[str, float]:
    """What an outsider can compute of one kernel, by the names in `STATISTICS`.

    Args:
        kernel: Of rank 2 or more, filters last, or the filters as an `(M, L)` matrix.

    Returns:
        A finite number for each name.

    Raises:
        ValueError: If the kernel has no two filters of two weights, a weight that is
            not finite, or weights that are all the same.

    Example:

    ```python
    seen = kernel_statistics(model.get_layer("conv2_block1_conv2").kernel)
    seen["mean filter"]  # about 1, and 6 with a mark as in the papers
    ```
    """
    seen = _Kernel(kernel)
    return {name: float(of(seen)) for name, of in STATISTICS.items()}


def sorted_weights(kernel: ArrayLike) -> Floats:
    """The shape of a kernel's distributions, for a classifier to learn from.

    Args:
        kernel: As for `kernel_statistics`.

    Returns:
        Quantiles, evenly spaced from the smallest to the largest: 33 of the weights,
        17 of the filters' norms and 17 of the singular values, each relative to what
        s alone would make of them; shape `(67,)`.

    Raises:
        ValueError: As `kernel_statistics`.
    """
    seen = _Kernel(kernel)
    return np.concatenate(
        [
            np.quantile(values, np.linspace(0, 1, count))
            for values, count in (
                (seen.weights, _WEIGHT_QUANTILES),
                (seen.norms, _OTHER_QUANTILES),
                (seen.singular_values, _OTHER_QUANTILES),
            )
        ]
    )


class _Kernel:
    """A kernel divided by s, and what several statistics need of it."""

    def __init__(self, kernel: ArrayLike) -> None:
        array = np.asarray(kernel, np.float64)
        if array.ndim < 2 or min(array.shape[-1], array.size // array.shape[-1]) < 2:
            raise ValueError(
                "Expected a kernel of two filters or more, of two weights or more "
                f"each. Received: shape={array.shape}"
            )
        self.std = float(array.std())
        if not 0 < self.std < np.inf:
            raise ValueError(
                "Expected a kernel of finite weights that differ. Received: a standard "
                f"deviation of {self.std}"
            )
        self.matrix: Floats = array.reshape(-1, array.shape[-1]) / self.std
        self.size, self.count = self.matrix.shape

    @property
    def weights(self) -> Floats:
        return self.matrix.reshape(-1)

    def moment(self, order: int) -> float:
        centred = self.weights - self.weights.mean()
        return float(np.mean(centred**order))

    @cached_property
    def norms(self) -> Floats:
        """Of the filters, over the square root of M: about 1 each."""
        norms: Floats = np.linalg.norm(self.matrix, axis=0) / np.sqrt(self.size)
        return norms

    @cached_property
    def row_norms(self) -> Floats:
        """Of what all filters do with one input, over the square root of L."""
        norms: Floats = np.linalg.norm(self.matrix, axis=1) / np.sqrt(self.count)
        return norms

    @cached_property
    def singular_values(self) -> Floats:
        """In descending order, over the edge s (sqrt(M) + sqrt(L)) of random ones."""
        edge = np.sqrt(self.size) + np.sqrt(self.count)
        values: Floats = np.linalg.svd(self.matrix, compute_uv=False) / edge
        return values

    def singular_value(self, place: int) -> float:
        """The one in that place from 1 on, or the last."""
        return float(self.singular_values[:place][-1])

    @cached_property
    def energies(self) -> Floats:
        """The squared singular values, as shares of their sum."""
        squares = self.singular_values**2
        shares: Floats = squares / squares.sum()
        return shares

    @cached_property
    def cosines(self) -> Floats:
        """Of each pair of filters; 0 where one of them is zero."""
        lengths = np.linalg.norm(self.matrix, axis=0)
        units = self.matrix / np.where(lengths > 0, lengths, 1)
        above = np.triu_indices(self.count, 1)
        cosines: Floats = (units.T @ units)[above]
        return cosines


def _effective_rank(seen: _Kernel) -> float:
    """exp of the entropy of the energies (Roy & Vetterli 2007), over its maximum."""
    energies = seen.energies[seen.energies > 0]
    return float(np.exp(-np.sum(energies * np.log(energies))) / len(seen.energies))


STATISTICS: dict[str, Callable[[_Kernel], float]] = {
    # ln s.
    "scale": lambda seen: float(np.log(seen.std)),
    # The mean of all weights, in standard errors.
    "mean": lambda seen: float(seen.weights.mean() * np.sqrt(seen.weights.size)),
    "skewness": lambda seen: seen.moment(3),
    "kurtosis": lambda seen: seen.moment(4),
    "sixth moment": lambda seen: seen.moment(6),
    "small weights": lambda seen: float(np.mean(np.abs(seen.weights) < _SMALL)),
    "largest weight": lambda seen: float(np.abs(seen.weights).max()),
    # The spread of the mean filter over s / sqrt(L) (Wang & Kerschbaum 2019).
    "mean filter": lambda seen: float(
        seen.matrix.mean(axis=1).std() * np.sqrt(seen.count)
    ),
    "spread of filter norms": lambda seen: float(seen.norms.std() / seen.norms.mean()),
    "largest filter norm": lambda seen: float(seen.norms.max()),
    "smallest filter norm": lambda seen: float(seen.norms.min()),
    "spread of row norms": lambda seen: float(
        seen.row_norms.std() / seen.row_norms.mean()
    ),
    "singular value 1": lambda seen: seen.singular_value(1),
    "singular value 2": lambda seen: seen.singular_value(2),
    "singular value 4": lambda seen: seen.singular_value(4),
    "singular value 16": lambda seen: seen.singular_value(16),
    "smallest singular value": lambda seen: float(seen.singular_values[-1]),
    "effective rank": _effective_rank,
    # In how many directions the energy is: 1 / sum of squares, over their number.
    "participation": lambda seen: float(
        1 / np.sum(seen.energies**2) / len(seen.energies)
    ),
    "mean cosine": lambda seen: float(seen.cosines.mean()),
    "largest cosine": lambda seen: float(np.abs(seen.cosines).max()),
    "root mean square cosine": lambda seen: float(np.sqrt(np.mean(seen.cosines**2))),
}
