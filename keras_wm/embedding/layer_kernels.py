"""Finding the layer of a model, and the kernel in it, that a user names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_wm.embedding.lora import is_factor
from keras_wm.embedding.marked_layers import own_variables, sublayers

if TYPE_CHECKING:
    from keras_wm.files.keras_model import KerasModel


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
