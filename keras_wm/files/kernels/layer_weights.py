"""Effective weights of a layer, computed from its stored arrays.

Usually each array of floats is a weight. A quantized layer stores its kernel as small
integers with scales, and a layer with LoRA has two factors besides the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts
from keras_wm.files.contents import Kernel
from keras_wm.files.kernels.lora import with_lora
from keras_wm.files.kernels.quantized import kernels_of_quantized
from keras_wm.files.kernels.quantized_parts import (
    is_integer,
    parts_by_name,
    parts_by_position,
)
from keras_wm.files.kernels.stored import Stored, as_kernel
from keras_wm.files.limits import DEFAULT_LIMITS, Limits


def may_be_quantized(arrays: Mapping[str, Stored]) -> bool:
    """Returns whether a layer has integers that can be those of a quantized kernel."""
    return any(map(is_integer, arrays.values()))


def weights_of_layer(
    layer: str,
    arrays: Mapping[str, Stored],
    facts: LayerFacts = NO_FACTS,
    limits: Limits | None = None,
) -> list[Kernel]:
    """Returns the weights of a layer.

    Args:
        layer: Name of the layer.
        arrays: Stored arrays of the layer in order, by the names or the numbers of its
            variables.
        facts: Facts about the layer in the model's config.
        limits: Limits on the resources that a kernel can use; the defaults of
            `Limits` if `None`.

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
        weights += kernels_of_quantized(layer, parts, facts, limits or DEFAULT_LIMITS)
    return with_lora(weights, arrays, facts.lora_alpha)
