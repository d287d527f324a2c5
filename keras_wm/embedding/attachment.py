"""Putting a mark on a model that exists already, and taking it off again."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import keras

from keras_wm.embedding.kernel_projection import Loss
from keras_wm.embedding.marked_layers import (
    find_marked_layers,
    own_variables,
    rebuild_steps,
    replace_penalties,
    sublayers,
)
from keras_wm.embedding.regularizer import WatermarkRegularizer
from keras_wm.scheme.key import WatermarkKey


def attach(
    model: Any,
    layer: Any,
    key: WatermarkKey,
    loss: Loss = "margin",
    strength: float | None = None,
    margin: float | None = None,
    variable: str | None = None,
) -> WatermarkRegularizer:
    """Marks a layer of a model that is built, compiled, pretrained or loaded.

    The regularizer is set on the layer's variable, so the model's config never
    mentions it and every checkpoint is clean. A regularizer that is there already
    goes on acting. A model that was compiled stays so, with its optimizer's
    state; its training step is rebuilt at the next `fit`.

    Args:
        model: A built Keras model: Functional, Sequential or subclassed. Pass the
            one that you call `fit` on, not a model inside it: only that one's
            training step is compiled anew.
        layer: The layer to mark, or its name, however deep in the model.
        key: The `WatermarkKey` to embed.
        loss: See `WatermarkRegularizer`.
        strength: See `WatermarkRegularizer`.
        margin: See `WatermarkRegularizer`.
        variable: The name of the layer's variable to mark. Defaults to
            `"kernel"`, or the layer's only variable of rank 2 or more.

    Returns:
        The `WatermarkRegularizer` that now acts on the layer's kernel.

    Raises:
        TypeError: If `model` is not a Keras model, or `key` no key.
        ValueError: If the layer is not found or not built, carries a mark
            already, or cannot carry the key's message.

    Example:

    ```python
    model = keras.saving.load_model("pretrained.keras")
    keras_wm.attach(model, "block4_conv2", key)
    model.fit(x, y, callbacks=[keras_wm.BitErrorRate()])
    ```
    """
    _check_model(model)
    target, kernel = find_kernel(model, layer, variable)
    host = kernel.regularizer
    if isinstance(host, WatermarkRegularizer):
        if host.key is not None:
            raise ValueError(
                f"Layer {target.name!r} carries a mark already: {host!r}. Take it off "
                "with keras_wm.detach(model) first."
            )
        host = host.regularizer
    regularizer = WatermarkRegularizer(key, loss, strength, margin, regularizer=host)
    key.check_shape(kernel.shape)
    # One that was loaded without its key makes room.
    replace_penalties(target, lambda mark: mark if mark.key else mark.regularizer)
    kernel.regularizer = regularizer
    regularizer.attached_to = weakref.ref(model)
    rebuild_steps(model)
    for mark in find_marked_layers(model):
        if mark.variable is kernel and mark.problem:
            warnings.warn(
                f"The mark on layer {target.name!r} will not be trained: {mark.problem}.",
                stacklevel=2,
            )
    return regularizer


def detach(model: Any) -> list[str]:
    """Takes every mark's penalty off a model, whichever way it got there.

    What is embedded stays embedded; it is only not trained any more. The host's
    own regularizers stay, and the model's config no longer mentions a mark.

    Args:
        model: A Keras model.

    Returns:
        The names of the layers that carried a mark.

    Raises:
        TypeError: If `model` is not a Keras model.
    """
    _check_model(model)
    names = [mark.name for mark in find_marked_layers(model)]
    replace_penalties(model, lambda mark: mark.regularizer)
    rebuild_steps(model)
    return names


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a keras.Model. Received: {type(model).__name__}. "
            "Load a file with keras.saving.load_model first."
        )


def find_kernel(model: Any, layer: Any, variable: str | None = None) -> tuple[Any, Any]:
    """A layer that holds a kernel, and the kernel; arguments as for `attach`."""
    target = _find_layer(model, layer)
    # Wrappers and recurrent layers keep their kernel in the layer inside them.
    inside = [
        (holder, kernel)
        for holder in sublayers(target)
        for kernel in _kernels_of(holder, variable)
    ]
    found = [pair for pair in inside if pair[0] is target] or inside
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"Layer {target.name!r} has {len(found)} kernels inside. Name one of the "
            f"layers that hold them: {', '.join(repr(h.name) for h, _ in found)}."
        )
    if not target.weights:
        raise ValueError(
            f"Layer {target.name!r} has no weights. Build the model first (call it, "
            "or model.build), or choose a layer that has a kernel."
        )
    names = ", ".join(repr(v.name) for v in target.weights if len(v.shape) >= 2)
    raise ValueError(
        f"Layer {target.name!r} has no variable {variable or 'kernel'!r} of rank 2 or "
        f"more. It has: {names or 'none'}. Name one with variable=."
    )


def _kernels_of(layer: Any, variable: str | None) -> list[Any]:
    """The layer's own variables that are meant, of rank 2 or more."""
    matrices = [one for one in own_variables(layer) if len(one.shape) >= 2]
    if variable is None and len(matrices) == 1:
        return matrices
    return [one for one in matrices if one.name == (variable or "kernel")]


def _find_layer(model: Any, layer: Any) -> Any:
    layers = [candidate for candidate in sublayers(model) if candidate is not model]
    if isinstance(layer, str):
        found = [candidate for candidate in layers if candidate.name == layer]
    else:
        found = [candidate for candidate in layers if candidate is layer]
    if len(found) == 1:
        return found[0]
    name = layer if isinstance(layer, str) else getattr(layer, "name", layer)
    if found:
        raise ValueError(
            f"{len(found)} layers of {model.name!r} have the name {name!r}. "
            "Pass the layer itself."
        )
    names = ", ".join(repr(candidate.name) for candidate in layers if candidate.weights)
    raise ValueError(
        f"{model.name!r} has no layer {name!r}. Its layers with weights: "
        f"{names or 'none, it is not built yet'}."
    )
