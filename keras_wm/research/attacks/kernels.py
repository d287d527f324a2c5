"""Attacks that change each kernel by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_wm.embedding.marked_layers import own_variables, sublayers
from keras_wm.research.attacks.attack import Change
from keras_wm.research.datasets import Examples

Kernel = NDArray[np.float32]


def kernels_by_layer(model: Any) -> list[tuple[Any, Any]]:
    """Every trained weight of two axes or more, which may carry a mark.

    Returns:
        Pairs of a layer, however deep in the model, and its weight.
    """
    return [
        (layer, variable)
        for layer in sublayers(model)
        for variable in own_variables(layer)
        if variable.trainable
        and len(variable.shape) > 1
        and keras.backend.is_float_dtype(variable.dtype)
    ]


def kernel_variables(model: Any) -> list[Any]:
    """The weights of `kernels_by_layer`."""
    return [variable for _, variable in kernels_by_layer(model)]


def each_kernel(
    change: Callable[[Kernel, float, np.random.Generator], Kernel],
) -> Change:
    """An attack that does the same to every kernel.

    Args:
        change: Gives another kernel for a kernel, a strength and a source of random
            numbers.
    """

    def attack(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        for variable in kernel_variables(model):
            kernel = np.asarray(variable, np.float32)
            variable.assign(change(kernel, strength, rng))
        return model

    return attack
