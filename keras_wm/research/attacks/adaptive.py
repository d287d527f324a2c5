"""What somebody does who knows everything but the secret, the marked layer too.

Overwriting with many keys is in `overwriting`; what comes after each of these, in
`fine_tuning.then_fine_tuned`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.embedding.attachment import find_kernel
from keras_wm.research.attacks.architecture import reinitialize
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.kernels import kernels_by_layer
from keras_wm.research.attacks.training import train
from keras_wm.research.datasets import Examples


def without_directions(kernel: NDArray[Any], count: int) -> NDArray[Any]:
    r"""Takes the directions out of a kernel that look most like a mark.

    The first is that of the mean filter, which the papers' mark is in. The others
    are the largest left singular vectors of what is left of the matrix \((M, L)\):
    \(W - U U^\top W\).

    Args:
        kernel: W, filters last.
        count: How many directions; at most half of those that there are.

    Returns:
        A copy without them.
    """
    flat = kernel.reshape(-1, kernel.shape[-1]).astype(np.float64)
    count = min(count, min(flat.shape) // 2)
    if count:
        flat = _without(flat, flat.mean(axis=1, keepdims=True))
    if count > 1:
        left, _, _ = np.linalg.svd(flat, full_matrices=False)
        flat = _without(flat, left[:, : count - 1])
    return flat.reshape(kernel.shape).astype(kernel.dtype)


def _without(flat: NDArray[Any], directions: NDArray[Any]) -> NDArray[Any]:
    """A matrix without the part along orthogonal directions, given as columns."""
    norms = np.linalg.norm(directions, axis=0)
    units = directions / np.where(norms > 0, norms, 1)
    left: NDArray[Any] = flat - units @ (units.T @ flat)
    return left


def projection(layer: str | None = None) -> Attack:
    """An attack that takes suspicious directions out of a layer, or of all."""

    def change(model: Any, data: Examples | None, count: float, seed: int) -> Any:
        for _, variable in _suspects(model, layer):
            variable.assign(without_directions(np.asarray(variable), round(count)))
        return model

    return Attack(
        "projection",
        f"Takes the most suspicious directions out of {_told(layer)}.",
        "directions",
        (1, 2, 4, 8, 16, 32),
        change,
    )


def reset(layer: str | Sequence[str] | None = None) -> Attack:
    """An attack that draws layers anew and trains them alone.

    Args:
        layer: The name of the marked layer, or of several. `None` is all that have a
            kernel, which is training from labels with nothing but the owner's
            normalizations.
    """

    def change(model: Any, data: Examples, rate: float, seed: int) -> Any:
        layers = [holder for holder, _ in _suspects(model, layer)]
        reinitialize(model, layers)
        train(model, data, rate, layers=layers)
        return model

    return Attack(
        "reset",
        f"Draws {_told(layer)} anew and trains nothing else.",
        "learning rate",
        (0.01, 0.05, 0.1),
        change,
        needs_data=True,
    )


def _suspects(model: Any, layer: str | Sequence[str] | None) -> list[tuple[Any, Any]]:
    """The layers and kernels that are suspected of a mark."""
    if layer is None:
        return kernels_by_layer(model)
    names = [layer] if isinstance(layer, str) else layer
    return [find_kernel(model, name) for name in names]


def _told(layer: str | Sequence[str] | None) -> str:
    if layer is None:
        return "every layer"
    if isinstance(layer, str):
        return f"the layer {layer!r}"
    return f"the layers {', '.join(map(repr, layer))}"
