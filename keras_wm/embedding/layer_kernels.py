"""Finding the layer of a model, and the kernel in it, that a user names."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import keras

from keras_wm.embedding.lora import is_factor
from keras_wm.embedding.marked_layers import own_variables, sublayers
from keras_wm.scheme.capacity import flat_shape, unseen_margin
from keras_wm.scheme.key import WatermarkKey

if TYPE_CHECKING:
    from keras_wm.files.keras_model import KerasModel

_MARKABLE = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
# In standard deviations of a score: what a kernel must have room for.
_SMALLEST_MARGIN = 1.0


def find_kernel(
    model: KerasModel, layer: Any, variable: str | None = None
) -> tuple[Any, Any]:
    """Returns the layer that holds a kernel, and the kernel.

    Args:
        model: A built Keras model.
        layer: The layer or its name, as for `attach`.
        variable: Name of the layer's variable, as for `attach`.

    Raises:
        ValueError: If such a kernel is missing, or there are several.
    """
    target = _find_layer(model, layer)
    # Wrappers and recurrent layers have their kernel in the layer inside them.
    inside = [
        (holder, kernel)
        for holder in sublayers(target)
        for kernel in _matching_variables(holder, variable)
    ]
    kernels = [pair for pair in inside if pair[0] is target] or inside
    if len(kernels) == 1:
        return kernels[0]
    if kernels:
        holders = ", ".join(repr(holder.name) for holder, _ in kernels)
        raise ValueError(
            f"Layer {target.name!r} has {len(kernels)} kernels inside. Name one of the "
            f"layers that hold them: {holders}."
        )
    if not target.weights:
        raise ValueError(
            f"Layer {target.name!r} has no weights. Build the model first (call it, "
            "or model.build), or choose a layer that has a kernel."
        )
    names = ", ".join(repr(v.name) for v in target.weights if len(v.shape) >= 2)
    raise ValueError(
        f"Layer {target.name!r} has no variable {variable or 'kernel'!r} of rank 2 or "
        f"more. It has: {names or 'none'}. Choose one with variable=."
    )


def markable_kernels(model: Any, key: WatermarkKey) -> list[tuple[Any, Any]]:
    """Returns the layers and kernels of a model that have room for a mark.

    These are the trained kernels of dense and convolutional layers that can hold the
    message unseen with a margin of a standard deviation. The last ones before the
    outputs are left out.

    Args:
        model: A built Keras model.
        key: The key.

    Raises:
        ValueError: If there is no such kernel.
    """
    trained = {id(variable) for variable in model.trainable_weights}
    kernels: dict[int, tuple[Any, Any]] = {}
    for layer in sublayers(model):
        if isinstance(layer, _MARKABLE) and id(layer._kernel) in trained:
            # A kernel that several layers share is marked once.
            kernels.setdefault(id(layer._kernel), (layer, layer._kernel))
    last = {id(layer) for layer in _before_outputs(model, kernels.values())}
    found = [
        (layer, kernel)
        for layer, kernel in kernels.values()
        if id(layer) not in last and key.fits(kernel.shape) and _has_room(kernel, key)
    ]
    if not found:
        raise ValueError(
            f"Expected a model with a dense or convolutional kernel that has room for "
            f"{key.bits} bits, besides the last one. Received: {model.name!r}, with "
            f"{len(kernels)} such kernels that are trained. Use a key of fewer bits, "
            "or name a layer."
        )
    return found


def _has_room(kernel: Any, key: WatermarkKey) -> bool:
    shape = flat_shape(kernel.shape)
    return unseen_margin(key.bits, key.filters, *shape) >= _SMALLEST_MARGIN


def _before_outputs(model: Any, kernels: Collection[tuple[Any, Any]]) -> list[Any]:
    """Returns the layers whose kernels are the last ones before a model's outputs."""
    layers, outputs = [layer for layer, _ in kernels], getattr(model, "outputs", None)
    if not outputs:
        # A subclassed model does not show how its layers are connected.
        return layers[-1:]
    known, last = {id(layer) for layer in layers}, []
    tensors, seen = list(keras.tree.flatten(outputs)), set()
    while tensors:
        tensor = tensors.pop()
        layer, node, _ = tensor._keras_history
        if (id(layer), node) in seen:
            continue
        seen.add((id(layer), node))
        inside = [part for part in sublayers(layer) if id(part) in known]
        if inside:
            last.append(inside[-1])
        elif layer._inbound_nodes:
            tensors += layer._inbound_nodes[node].input_tensors
    return last


def _matching_variables(layer: Any, name: str | None) -> list[Any]:
    """Returns the layer's own variables of rank 2 or more that have the name.

    Without a name, this is the only such variable or else the one named `"kernel"`.
    """
    matrices = [
        matrix
        for matrix in own_variables(layer)
        if len(matrix.shape) >= 2 and not is_factor(matrix)
    ]
    if name is None and len(matrices) == 1:
        return matrices
    return [matrix for matrix in matrices if matrix.name == (name or "kernel")]


def _find_layer(model: KerasModel, layer: Any) -> Any:
    """Returns a layer of a model by itself or by its name."""
    layers = [candidate for candidate in sublayers(model) if candidate is not model]
    matches = [item for item in layers if item is layer or item.name == layer]
    if len(matches) == 1:
        return matches[0]
    name = getattr(layer, "name", layer)
    if matches:
        raise ValueError(
            f"{len(matches)} layers of {model.name!r} have the name {name!r}. "
            "Pass the layer itself."
        )
    names = ", ".join(repr(candidate.name) for candidate in layers if candidate.weights)
    raise ValueError(
        f"{model.name!r} has no layer {name!r}. Its layers with weights: "
        f"{names or 'none, because it is not built yet'}."
    )
