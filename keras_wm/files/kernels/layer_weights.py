"""The weights that a layer computes with, from the arrays that are stored of it.

Mostly that is each array of floats as it is. A quantized layer has its kernel as small
integers with scales, and a layer with LoRA has two factors beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts
from keras_wm.files.contents import Kernel
from keras_wm.files.kernels.lora import with_lora
from keras_wm.files.kernels.quantized import kernels_of_quantized
from keras_wm.files.kernels.quantized_parts import (
    Parts,
    is_integer,
    parts_by_name,
    parts_by_position,
)
from keras_wm.files.kernels.stored import Stored, as_kernel
from keras_wm.files.limits import DEFAULT_LIMITS, Limits


def may_be_quantized(arrays: Mapping[str, Stored]) -> bool:
    """Whether integers that may be those of a kernel are stored of a layer."""
    return any(map(is_integer, arrays.values()))


def weights_of_layer(
    layer: str,
    arrays: Mapping[str, Stored],
    facts: LayerFacts = NO_FACTS,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Kernel]:
    """The weights of a layer.

    Args:
        layer: The layer's name.
        arrays: What is stored of it, in order, by the names of its variables or by
            their numbers.
        facts: What the layer's config tells.
        limits: What a kernel may take.

    Returns:
        The weights. Where the arrays could be read in several ways, there is one
        weight for each.
    """
    found: list[Parts] = []
    if may_be_quantized(arrays):
        numbered = all(name.isdecimal() for name in arrays)
        found = (parts_by_position if numbered else parts_by_name)(arrays)
    used = {id(array) for parts in found for array in parts.arrays}
    weights = [
        as_kernel(array, layer, name)
        for name, array in arrays.items()
        if id(array) not in used and array.is_float
    ]
    for parts in found:
        weights += kernels_of_quantized(layer, parts, facts, limits)
    return with_lora(weights, arrays, facts.lora_alpha)
