"""Kernels with a LoRA update: W + alpha / r * A B (Hu et al., 2021).

Keras merges the factors A and B into W when it saves in its own format. Its legacy
format and a model in memory keep them separate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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
    """Adds the LoRA update to the weights that have one.

    Args:
        kernels: Weights of a layer, including the factors.
        arrays: Stored arrays of the layer, by the names of their variables.
        alpha: Scale of the update, before division by the rank r of the factors. If
            `None`, it is r, which is the default of Keras.

    Returns:
        The weights without the factors.
    """
    merged = []
    for kernel in kernels:
        a = arrays.get(f"{_PREFIX}{kernel.variable}_a")
        b = arrays.get(f"{_PREFIX}{kernel.variable}_b")
        if a is not None and b is not None and _fit(kernel, a, b):
            merged.append(_merge(kernel, a, b, alpha))
        elif not _is_factor(kernel.variable, arrays):
            merged.append(kernel)
    return merged


def has_lora(names: Iterable[str]) -> bool:
    """Returns whether some variables of a layer have the names of LoRA factors."""
    return any(name.startswith(_PREFIX) for name in names)


def _is_factor(variable: str, arrays: Mapping[str, Stored]) -> bool:
    """Returns whether a variable is a factor: `"lora_kernel_a"` is one of `"kernel"`.

    Without `"kernel"`, an array of that name can be anything.
    """
    base = variable.removeprefix(_PREFIX)[:-2]
    return variable.startswith(_PREFIX) and variable in arrays and base in arrays


def _fit(kernel: Kernel, a: Stored, b: Stored) -> bool:
    return (
        len(b.shape) == 2
        and a.shape == (*kernel.shape[:-1], b.shape[0])
        and b.shape[1] == kernel.shape[-1]
    )


def _merge(kernel: Kernel, a: Stored, b: Stored, alpha: float | None) -> Kernel:
    rank = b.shape[0]
    scale = 1.0 if alpha is None or not math.isfinite(alpha) else alpha / rank

    def read() -> NDArray[np.floating]:
        merged: NDArray[Any] = kernel.read() + scale * np.matmul(a.read(), b.read())
        return merged

    note = f"with the product of LoRA's factors of rank {rank} added"
    note = f"{kernel.note}, {note}" if kernel.note else note
    return replace(kernel, read=read, note=note)
