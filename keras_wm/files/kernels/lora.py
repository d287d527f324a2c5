"""Kernels with what LoRA learned: W + alpha / r * A B (Hu et al., 2021).

Keras merges the factors when it saves in its own format; its legacy format and a model
in memory have them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.contents import Kernel
from keras_wm.files.kernels.stored import Stored

_PREFIX = "lora_"


def with_lora(
    kernels: list[Kernel], arrays: Mapping[str, Stored], alpha: float | None
) -> list[Kernel]:
    """Weights of a layer, its factors added to those that they belong to.

    Args:
        kernels: The weights, among them the factors themselves.
        arrays: What is stored of the layer, by the names of its variables.
        alpha: What the product is multiplied by, over the rank of the factors; the
            rank where it is not known, as in Keras.

    Returns:
        The weights without the factors.
    """
    factors = {name for name in arrays if name.startswith(_PREFIX)}
    merged = []
    for kernel in kernels:
        a = arrays.get(f"{_PREFIX}{kernel.variable}_a")
        b = arrays.get(f"{_PREFIX}{kernel.variable}_b")
        if a is not None and b is not None and _fit(kernel, a, b):
            kernel = _merged(kernel, a, b, alpha)
        elif kernel.variable in factors and _base(kernel.variable) in arrays:
            continue
        merged.append(kernel)
    return merged


def has_lora(arrays: Mapping[str, Stored]) -> bool:
    """Whether factors of LoRA are stored of a layer, under their names."""
    return any(name.startswith(_PREFIX) for name in arrays)


def _base(factor: str) -> str:
    """`"lora_kernel_a"` belongs to `"kernel"`."""
    return factor.removeprefix(_PREFIX)[:-2]


def _fit(kernel: Kernel, a: Stored, b: Stored) -> bool:
    return (
        len(b.shape) == 2
        and a.shape == (*kernel.shape[:-1], b.shape[0])
        and b.shape[1] == kernel.shape[-1]
    )


def _merged(kernel: Kernel, a: Stored, b: Stored, alpha: float | None) -> Kernel:
    rank = b.shape[0]
    scale = 1.0 if alpha is None or not math.isfinite(alpha) else alpha / rank

    def read() -> NDArray[np.floating]:
        merged: NDArray[Any] = kernel.read() + scale * np.matmul(a.read(), b.read())
        return merged

    note = f"with the product of LoRA's factors of rank {rank} added"
    note = f"{kernel.note}, {note}" if kernel.note else note
    return replace(kernel, read=read, note=note)
