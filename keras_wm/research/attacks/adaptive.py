"""Attacks by someone who knows everything except the secret: even the marked layer.

Overwriting with many keys is in `overwriting`. Fine-tuning after each of these attacks
is in `fine_tuning.with_fine_tuning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.embedding.attachment import find_kernel
from keras_wm.research.attacks.architecture import reinitialize
from keras_wm.research.attacks.attack import Attack, kernels_by_layer
from keras_wm.research.attacks.training import train
from keras_wm.research.datasets import Examples


def without_directions(kernel: NDArray[Any], count: int) -> NDArray[Any]:
    r"""Removes the directions from a kernel that look most like a mark.

    The first direction is the mean filter, which carries the papers' mark. The others
    are the largest left singular vectors of the remaining matrix \((M, L)\):
    \(W - U U^\top W\).

    Args:
        kernel: The kernel W, filters last.
        count: Number of directions to remove. At most half of all directions are
            removed.

    Returns:
        A copy of the kernel without these directions.
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
    rest: NDArray[Any] = flat - units @ (units.T @ flat)
    return rest


def projection(layer: str | None = None) -> Attack:
    """Returns an attack that removes suspicious directions from kernels.

    Args:
        layer: Name of the marked layer. `None` attacks every layer.
    """

    def change(model: Any, data: Examples | None, count: float, seed: int) -> Any:
        for _, variable in _suspects(model, layer):
            variable.assign(without_directions(np.asarray(variable), round(count)))
        return model

    return Attack(
        "projection",
        f"Removes the most suspicious directions from {_layer_phrase(layer)}.",
        "directions",
        (1, 2, 4, 8, 16, 32),
        change,
    )


def reset(layer: str | Sequence[str] | None = None) -> Attack:
    """Returns an attack that re-initialises layers and trains only these.

    Args:
        layer: Name of the marked layer, or of several. `None` re-initialises all
            layers with a kernel; then only the owner's normalizations are left, and
            the attacker trains from labels.
    """

    def change(model: Any, data: Examples, rate: float, seed: int) -> Any:
        layers = [suspect for suspect, _ in _suspects(model, layer)]
        reinitialize(model, layers)
        train(model, data, rate, layers=layers)
        return model

    return Attack(
        "reset",
        f"Re-initialises {_layer_phrase(layer)} and trains nothing else.",
        "learning rate",
        (0.01, 0.05, 0.1),
        change,
        needs_data=True,
    )


def _suspects(model: Any, layer: str | Sequence[str] | None) -> list[tuple[Any, Any]]:
    """Returns the layers and kernels that can carry a mark."""
    if layer is None:
        return kernels_by_layer(model)
    names = [layer] if isinstance(layer, str) else layer
    return [find_kernel(model, name) for name in names]


def _layer_phrase(layer: str | Sequence[str] | None) -> str:
    if layer is None:
        return "every layer"
    if isinstance(layer, str):
        return f"the layer {layer!r}"
    return f"the layers {', '.join(map(repr, layer))}"
