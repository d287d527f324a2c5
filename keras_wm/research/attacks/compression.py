"""Compressing kernels: fewer directions, or only three values.

The network's batch normalizations are fitted to the compressed kernels, as in every
compression that keeps a network useful.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_wm.research.attacks.attack import Attack, Change, kernel_variables
from keras_wm.research.attacks.training import (
    EXAMPLES,
    refit_normalizations,
    unlabelled,
)
from keras_wm.research.datasets import Examples
from keras_wm.utils.arrays import Floats


def truncated(matrix: Floats, share: float) -> Floats:
    """Returns the closest matrix of a lower rank.

    Args:
        matrix: Shape `(M, L)`.
        share: Share of the largest possible rank that is kept; the rank is at least 1.
    """
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    rank = max(1, round(share * len(values)))
    low: Floats = left[:, :rank] * values[:rank] @ right[:rank]
    return low


def ternary(matrix: Floats, threshold: float) -> Floats:
    r"""Returns a matrix with the values \(-s, 0, s\) in each column.

    Weights whose magnitude is below a threshold become 0, and s is the mean magnitude
    of the others, which is the closest such column
    ([Li & Liu 2016](https://arxiv.org/abs/1605.04711), equations 4 and 5).

    Args:
        matrix: Shape `(M, L)`, the filters in its columns.
        threshold: In mean magnitudes of a column. Li & Liu use 0.7.
    """
    magnitudes = np.abs(matrix)
    kept = magnitudes > threshold * magnitudes.mean(axis=0)
    counts = np.maximum(kept.sum(axis=0), 1)
    scale = (magnitudes * kept).sum(axis=0) / counts
    three: Floats = np.sign(matrix) * kept * scale
    return three


def _compressed(compress: Callable[[Floats, float], Floats]) -> Change:
    """Returns a change of all kernels but the last, given that of a matrix."""

    def change(model: Any, data: Examples, strength: float, seed: int) -> Any:
        for variable in kernel_variables(model)[:-1]:
            kernel = np.asarray(variable, np.float64)
            matrix = compress(kernel.reshape(-1, kernel.shape[-1]), strength)
            variable.assign(matrix.reshape(kernel.shape))
        rng = np.random.default_rng(seed)
        refit_normalizations(model, unlabelled(data, EXAMPLES, rng))
        return model

    return change


LOW_RANK = Attack(
    "low-rank",
    "Replaces each kernel by one of a lower rank.",
    "share of the rank that is kept",
    (0.75, 0.5, 0.25, 0.125, 0.0625),
    _compressed(truncated),
    needs_data=True,
)
TERNARY = Attack(
    "ternary",
    "Replaces the weights of each filter by one positive value, its negative, and 0.",
    "threshold of 0, in mean magnitudes of a filter's weights",
    (0.3, 0.5, 0.7, 1.0, 1.5),
    _compressed(ternary),
    needs_data=True,
)
