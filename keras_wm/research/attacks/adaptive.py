"""Attacks by someone who knows everything except the secret, also the marked layer.

Overwriting with many keys is in `overwriting`. `fine_tuning.with_fine_tuning` returns
each of these attacks followed by fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.research.attacks.architecture import reinitialize
from keras_wm.research.attacks.attack import Attack, kernels_by_layer, layer_phrase
from keras_wm.research.attacks.training import train
from keras_wm.research.datasets import Examples


def without_directions(kernel: NDArray[Any], count: int) -> NDArray[Any]:
    r"""Removes the directions from a kernel that look most like a mark.

    The first direction is the mean filter, which carries the papers' mark. The others
    are the largest left singular vectors of the remaining matrix \((M, L)\):
    \(W - U U^\top W\).

    Args:
        kernel: The kernel W, filters last. It is not changed.
        count: Number of directions to remove, limited to half of all directions.
    """
    flat = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    count = min(count, min(flat.shape) // 2)
    if count:
        flat = _project_out(flat, flat.mean(axis=1, keepdims=True))
    if count > 1:
        left, _, _ = np.linalg.svd(flat, full_matrices=False)
        flat = _project_out(flat, left[:, : count - 1])
    return flat.reshape(kernel.shape).astype(kernel.dtype)


def _project_out(flat: NDArray[Any], directions: NDArray[Any]) -> NDArray[Any]:
    """Returns a matrix without its part along orthogonal directions, the columns."""
    norms = np.linalg.norm(directions, axis=0)
    units = directions / np.where(norms > 0, norms, 1)
    return np.asarray(flat - units @ (units.T @ flat))


def projection(layer: str | None = None) -> Attack:
    """Returns an attack that removes suspicious directions from kernels.

    Args:
        layer: Name of the marked layer. `None` attacks every layer.
    """

    def change(model: Any, data: Examples | None, count: float, seed: int) -> Any:
        for _, variable in kernels_by_layer(model, layer):
            variable.assign(without_directions(np.asarray(variable), round(count)))
        return model

    return Attack(
        "projection",
        f"Removes the most suspicious directions from {layer_phrase(layer)}.",
        "directions",
        (1, 2, 4, 8, 16, 32),
        change,
    )


def reset(layer: str | Sequence[str] | None = None) -> Attack:
    """Returns an attack that re-initialises layers and trains only these.

    Args:
        layer: Name of the marked layer, or of several. `None` re-initialises all
            layers with a kernel, so that only the owner's normalizations are left.
    """

    def change(model: Any, data: Examples, rate: float, seed: int) -> Any:
        layers = [suspect for suspect, _ in kernels_by_layer(model, layer)]
        reinitialize(model, layers)
        train(model, data, rate, layers=layers)
        return model

    return Attack(
        "reset",
        f"Re-initialises {layer_phrase(layer)} and trains nothing else.",
        "learning rate",
        (0.01, 0.05, 0.1),
        change,
        needs_data=True,
    )
