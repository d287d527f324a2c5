r"""Statistics of a kernel that can reveal a mark to someone without the key.

A mark in the mean filter increases the variance of the mean filter, and therefore of
the weights (Wang & Kerschbaum, ICASSP 2019). A mark that is spread over the filters can
show in the singular values, which for random weights end at an edge (Marchenko & Pastur
1967).

Two kernels with the same mark resemble each other. For unrelated kernels, and for marks
with different X, `pair_statistics` are as if by chance.

All statistics except `"scale"` are independent of the weights' scale. W is the kernel
as a matrix of M weights by L filters, and s is its standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arrays import Floats

# Weights below this share of s count as small: about 8 % of normally distributed ones.
_SMALL = 0.1
_WEIGHT_QUANTILES, _OTHER_QUANTILES = 33, 17
# Number of singular vectors whose subspaces are compared.
_VECTORS = 8


def kernel_statistics(kernel: ArrayLike) -> dict[str, float]:
    """Returns the statistics of one kernel by their names in `STATISTICS`.

    Args:
        kernel: Kernel of rank 2 or more, filters last, or an `(M, L)` matrix.

    Returns:
        A finite number for each name.

    Raises:
        ValueError: If the kernel has fewer than two filters or two weights in a
            filter, a weight that is not finite, or only equal weights.

    Example:

    ```python
    statistics = kernel_statistics(model.get_layer("conv2_block1_conv2").kernel)
    statistics["mean filter"]  # about 1, or 6 with a mark as in the papers
    ```
    """
    scaled = ScaledKernel(kernel)
    return {name: float(statistic(scaled)) for name, statistic in STATISTICS.items()}


def sorted_weights(kernel: ArrayLike) -> Floats:
    """Returns quantiles of a kernel's distributions, as features for a classifier.

    Args:
        kernel: Kernel, as for `kernel_statistics`.

    Returns:
        Evenly spaced quantiles from minimum to maximum, shape `(67,)`: 33 of the
        weights, 17 of the filters' norms and 17 of the singular values. Each is
        divided by its expected scale for weights of standard deviation s.

    Raises:
        ValueError: As for `kernel_statistics`.
    """
    scaled = ScaledKernel(kernel)
    return np.concatenate(
        [
            np.quantile(values, np.linspace(0, 1, count))
            for values, count in (
                (scaled.weights, _WEIGHT_QUANTILES),
                (scaled.norms, _OTHER_QUANTILES),
                (scaled.singular_values, _OTHER_QUANTILES),
            )
        ]
    )


def pair_statistics(first: ArrayLike, second: ArrayLike) -> dict[str, float]:
    """Returns the statistics of two kernels by their names in `PAIR_STATISTICS`.

    A mark adds the same matrix to all kernels in which it has the same X, message and
    filter weights. With a share of the squared norm that is rho^2, the cosine of two
    kernels is about rho^2, which is rho^2 sqrt(M L) in standard errors.

    Args:
        first: Kernel of rank 2 or more, filters last.
        second: Kernel of the same shape.

    Returns:
        A finite number for each name.

    Raises:
        ValueError: If the shapes differ, or as for `kernel_statistics`.
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(
            "Expected two kernels of one shape. Received: shapes "
            f"{np.shape(first)} and {np.shape(second)}"
        )
    pair = ScaledKernel(first), ScaledKernel(second)
    return {
        name: float(statistic(*pair)) for name, statistic in PAIR_STATISTICS.items()
    }


class ScaledKernel:
    """A kernel divided by s, and the quantities that the statistics need."""

    def __init__(self, kernel: ArrayLike) -> None:
        array = np.asarray(kernel, np.float64)
        if array.ndim < 2 or min(array.shape[-1], array.size // array.shape[-1]) < 2:
            raise ValueError(
                "Expected a kernel of at least two filters with at least two weights "
                f"each. Received: shape={array.shape}"
            )
        self.std = float(array.std())
        if not 0 < self.std < np.inf:
            raise ValueError(
                "Expected a kernel of finite weights that are not all equal. Received: "
                f"a kernel with a standard deviation of {self.std}"
            )
        self.matrix: Floats = array.reshape(-1, array.shape[-1]) / self.std
        self.weights = self.matrix.reshape(-1)
        size, self.count = self.matrix.shape
        lengths = np.linalg.norm(self.matrix, axis=0)
        # Norms of the filters and of the rows of W, about 1 each.
        self.norms = lengths / np.sqrt(size)
        self.row_norms = np.linalg.norm(self.matrix, axis=1) / np.sqrt(self.count)
        # In descending order, over the largest one of random weights,
        # s (sqrt(M) + sqrt(L)).
        edge = np.sqrt(size) + np.sqrt(self.count)
        self.singular_values = np.linalg.svd(self.matrix, compute_uv=False) / edge
        # The squared singular values, as shares of their sum.
        squares = self.singular_values**2
        self.energies = squares / squares.sum()
        self.cosines = filter_cosines(self.matrix)

    def moment(self, order: int) -> float:
        centred = self.weights - self.weights.mean()
        return float(np.mean(centred**order))

    def singular_value(self, place: int) -> float:
        """Returns the singular value at a place, counted from 1, or the last one."""
        return float(self.singular_values[:place][-1])


def filter_cosines(matrix: Floats) -> Floats:
    """Returns the cosine of each pair of columns; 0 if one of the two is zero."""
    lengths = np.linalg.norm(matrix, axis=0)
    units = matrix / np.where(lengths > 0, lengths, 1)
    cosines: Floats = (units.T @ units)[np.triu_indices(matrix.shape[1], 1)]
    return cosines


def _effective_rank(kernel: ScaledKernel) -> float:
    return effective_number(kernel.energies) / len(kernel.energies)


def effective_number(energies: Floats) -> float:
    """Returns exp(entropy) of some energies, as shares (Roy & Vetterli 2007)."""
    shares = energies[energies > 0] / energies.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


STATISTICS: dict[str, Callable[[ScaledKernel], float]] = {
    # ln s.
    "scale": lambda w: float(np.log(w.std)),
    # Mean of all weights, in standard errors.
    "mean": lambda w: float(w.weights.mean() * np.sqrt(w.weights.size)),
    "skewness": lambda w: w.moment(3),
    "kurtosis": lambda w: w.moment(4),
    "sixth moment": lambda w: w.moment(6),
    "small weights": lambda w: float(np.mean(np.abs(w.weights) < _SMALL)),
    "largest weight": lambda w: float(np.abs(w.weights).max()),
    # Standard deviation of the mean filter over s / sqrt(L) (Wang & Kerschbaum 2019).
    "mean filter": lambda w: float(w.matrix.mean(axis=1).std() * np.sqrt(w.count)),
    "spread of filter norms": lambda w: float(w.norms.std() / w.norms.mean()),
    "largest filter norm": lambda w: float(w.norms.max()),
    "smallest filter norm": lambda w: float(w.norms.min()),
    "spread of row norms": lambda w: float(w.row_norms.std() / w.row_norms.mean()),
    "singular value 1": lambda w: w.singular_value(1),
    "singular value 2": lambda w: w.singular_value(2),
    "singular value 4": lambda w: w.singular_value(4),
    "singular value 16": lambda w: w.singular_value(16),
    "smallest singular value": lambda w: float(w.singular_values[-1]),
    "effective rank": _effective_rank,
    # Number of directions with energy, 1 / sum of squares, over all directions.
    "participation": lambda w: float(1 / np.sum(w.energies**2) / len(w.energies)),
    "mean cosine": lambda w: float(w.cosines.mean()),
    "largest cosine": lambda w: float(np.abs(w.cosines).max()),
    "root mean square cosine": lambda w: float(np.sqrt(np.mean(w.cosines**2))),
}


def _cosine(first: Floats, second: Floats) -> float:
    """Returns the cosine of two arrays in standard errors; 0 if one of them is zero."""
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    cosine = float(np.sum(first * second)) / norms if norms > 0 else 0.0
    return cosine * math.sqrt(first.size)


def _overlap(first: Floats, second: Floats) -> float:
    """Returns the overlap of two subspaces over that of random ones, k^2 / n.

    The subspaces are spanned by k orthonormal columns of n entries.
    """
    size, count = first.shape
    overlap = float(np.sum((first.T @ second) ** 2))
    return overlap * float(size) / float(count) ** 2


def _singular_vectors(kernel: ScaledKernel) -> tuple[Floats, Floats]:
    """Returns the first left and right singular vectors of W as columns."""
    left, _, right = np.linalg.svd(kernel.matrix, full_matrices=False)
    return left[:, :_VECTORS], right[:_VECTORS].T


def _row_products(kernel: ScaledKernel) -> Floats:
    """Returns the scalar products of all pairs of rows of W."""
    products: Floats = kernel.matrix @ kernel.matrix.T
    return products[np.triu_indices(len(products), 1)]


PAIR_STATISTICS: dict[str, Callable[[ScaledKernel, ScaledKernel], float]] = {
    "cosine": lambda v, w: _cosine(v.matrix, w.matrix),
    "cosine of mean filters": lambda v, w: _cosine(
        v.matrix.mean(axis=1), w.matrix.mean(axis=1)
    ),
    "cosine of row products": lambda v, w: _cosine(_row_products(v), _row_products(w)),
    "overlap of left singular vectors": lambda v, w: _overlap(
        _singular_vectors(v)[0], _singular_vectors(w)[0]
    ),
    "overlap of right singular vectors": lambda v, w: _overlap(
        _singular_vectors(v)[1], _singular_vectors(w)[1]
    ),
}
