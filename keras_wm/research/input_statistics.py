"""Statistics of a kernel along the directions of its inputs, which can reveal a mark.

They are for an outsider who has examples of the network's inputs. A mark that is read
through an anchor is where the layer's inputs are, so she looks there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.research.detectability import (
    ScaledKernel,
    effective_number,
    filter_cosines,
)
from keras_wm.utils.arrays import Floats

# Number of main directions of a layer's inputs.
_MAIN = 64
# Bands of directions whose energy is compared, from the main one.
_BANDS = (
    (1, 1),
    (2, 2),
    (3, 4),
    (5, 8),
    (9, 16),
    (17, 32),
    (33, 64),
    (65, 128),
    (129, 256),
)


def input_statistics(kernel: ArrayLike, rows: Floats) -> dict[str, float]:
    """Returns the statistics of a kernel along the directions of its inputs.

    Args:
        kernel: Kernel, as for `kernel_statistics`.
        rows: Inputs that the kernel is multiplied with, shape `(n, M)`.

    Returns:
        A finite number for each name in `INPUT_STATISTICS`.

    Raises:
        ValueError: As for `kernel_statistics`, or if all rows are 0.
    """
    seen = _SeenKernel(kernel, rows)
    return {name: float(value(seen)) for name, value in INPUT_STATISTICS.items()}


class _SeenKernel:
    """A kernel divided by s, in the coordinates of its inputs' main directions.

    C is the second moment of the inputs, with the mean eigenvalue 1.
    """

    def __init__(self, kernel: ArrayLike, rows: Floats) -> None:
        matrix = ScaledKernel(kernel).matrix
        second_moment = rows.T @ rows
        mean = np.trace(second_moment) / len(second_moment)
        if not mean > 0:
            raise ValueError("Expected rows of inputs that are not all 0.")
        values, directions = np.linalg.eigh(second_moment / mean)
        coordinates = directions[:, ::-1].T @ matrix
        # Mean square along each direction, from the main one.
        self.energies: Floats = np.mean(coordinates**2, axis=1)
        self.main: Floats = coordinates[:_MAIN]
        self.outputs: Floats = (
            np.sqrt(np.maximum(values[::-1], 0))[:, None] * coordinates
        )
        self.singular_values: Floats = np.linalg.svd(self.outputs, compute_uv=False)


def _main_kurtosis(seen: _SeenKernel) -> float:
    """Returns the kurtosis of the kernel along each main direction, on average."""
    squares = np.mean(seen.main**2, axis=1)
    fourths = np.mean(seen.main**4, axis=1)
    return float(np.mean(fourths[squares > 0] / squares[squares > 0] ** 2))


def _energy(first: int, last: int) -> Callable[[_SeenKernel], float]:
    """Returns the statistic of the energy along some directions, counted from 1.

    It is 0 if the kernel has not so many.
    """
    return lambda seen: float(
        np.sum(seen.energies[first - 1 : last])
        / max(min(last, len(seen.energies)) - first + 1, 1)
    )


INPUT_STATISTICS: dict[str, Callable[[_SeenKernel], float]] = {
    **{
        f"energy along inputs {first}-{last}": _energy(first, last)
        for first, last in _BANDS
    },
    "energy of outputs": lambda w: float(np.mean(w.outputs**2)),
    "largest singular value of outputs": lambda w: float(
        w.singular_values[0] / np.sqrt(w.outputs.size)
    ),
    "effective rank of outputs": lambda w: effective_number(w.singular_values**2),
    "cosine of outputs": lambda w: float(
        np.sqrt(np.mean(filter_cosines(w.outputs) ** 2))
    ),
    "largest singular value along inputs": lambda w: float(
        np.linalg.norm(w.main, 2) / np.sqrt(w.main.size)
    ),
    "mean filter along inputs": lambda w: float(
        np.sqrt(np.mean(w.main.mean(axis=1) ** 2) / np.mean(w.main**2))
    ),
    "kurtosis along inputs": _main_kurtosis,
}
