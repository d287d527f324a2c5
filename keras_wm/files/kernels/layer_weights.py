"""Effective weights of a layer, computed from its stored arrays.

Usually each array of floats is a weight. A quantized layer stores its kernel as small
integers with scales. A layer with LoRA has two factors besides the kernel, and its
effective kernel is W + alpha / r * A B (Hu et al., 2021). Keras merges the factors into
W when it saves in its own format. Its legacy format and a model in memory keep them
separate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts
from keras_wm.files.contents import Kernel, Stored, as_kernel
from keras_wm.files.kernels.quantized import kernels_of_quantized
from keras_wm.files.kernels.quantized_parts import (
    is_integer,
    parts_by_name,
    parts_by_position,
)
from keras_wm.files.limits import DEFAULT_LIMITS, Limits

_LORA_PREFIX = "lora_"


def may_be_quantized(arrays: Mapping[str, Stored]) -> bool:
    """Returns whether a layer has integers that can be those of a quantized kernel."""
    return any(map(is_integer, arrays.values()))


def has_lora(names: Iterable[str]) -> bool:
    """Returns whether some variables of a layer have the names of LoRA factors."""
    return any(name.startswith(_LORA_PREFIX) for name in names)


def weights_of_layer(
    layer: str,
    arrays: Mapping[str, Stored],
    facts: LayerFacts = NO_FACTS,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Kernel]:
    """Returns the weights of a layer.

    Args:
        layer: Name of the layer.
        arrays: Stored arrays of the layer in order, by the names or the numbers of its
            variables.
        facts: Facts about the layer in the model's config.
        limits: Limits on the resources that a kernel can use.

    Returns:
        The weights. If the arrays can be read in several ways, the list contains one
        weight for each.
    """
    numbered = all(name.isdecimal() for name in arrays)
    quantized = (parts_by_position if numbered else parts_by_name)(arrays)
    used = {id(array) for parts in quantized for array in parts.arrays}
    weights = [
        as_kernel(array, layer, name)
        for name, array in arrays.items()
        if id(array) not in used and array.is_float
    ]
    for parts in quantized:
        weights += kernels_of_quantized(layer, parts, facts, limits)
    return _with_lora(weights, arrays, facts.lora_alpha)


def _with_lora(
    kernels: list[Kernel], arrays: Mapping[str, Stored], alpha: float | None
) -> list[Kernel]:
    """Adds the LoRA update to the weights that have one, and leaves out the factors.

    The update is scaled by `alpha / rank`, or by 1 if `alpha` is `None`, as in Keras.
    """
    merged = []
    for kernel in kernels:
        a = arrays.get(f"{_LORA_PREFIX}{kernel.variable}_a")
        b = arrays.get(f"{_LORA_PREFIX}{kernel.variable}_b")
        if a is not None and b is not None and _fit(kernel, a, b):
            merged.append(_merge(kernel, a, b, alpha))
        elif not _is_factor(kernel.variable, arrays):
            merged.append(kernel)
    return merged


def _is_factor(variable: str, arrays: Mapping[str, Stored]) -> bool:
    """Returns whether a variable is a factor: `"lora_kernel_a"` is one of `"kernel"`.

    Without `"kernel"`, an array of that name can be anything.
    """
    base = variable.removeprefix(_LORA_PREFIX)[:-2]
    return variable.startswith(_LORA_PREFIX) and variable in arrays and base in arrays


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
