"""Adding a mark's penalty to an existing model, and removing it again."""

from __future__ import annotations

import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from keras_wm.embedding.checkpoint import save_checkpoint
from keras_wm.embedding.lora import is_factor, mark_merged_kernel
from keras_wm.embedding.loss.kernel_projection import Loss
from keras_wm.embedding.marked_layers import (
    check_is_model,
    find_marked_layers,
    own_variables,
    rebuild_steps,
    replace_penalties,
    sublayers,
    warn_of_shared_slots,
)
from keras_wm.embedding.regularizer import WatermarkRegularizer
from keras_wm.embedding.strength import release_strength
from keras_wm.scheme.key import WatermarkKey

if TYPE_CHECKING:
    from keras_wm.files.keras_model import KerasModel


def attach(
    model: KerasModel,
    layer: Any,
    key: WatermarkKey,
    loss: Loss = "margin",
    strength: float | None = None,
    margin: float | None = None,
    variable: str | None = None,
    slot: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> WatermarkRegularizer:
    """Adds a `WatermarkRegularizer` to one layer of a built model.

    The model may be compiled, pretrained or loaded from a file. The next `fit` embeds
    the mark.

    The regularizer is set on the layer's variable, not on the layer. The model's config
    therefore never mentions it, and every checkpoint is free of it. A regularizer that
    the kernel already has remains active. A compiled model remains compiled and keeps
    its optimizer's state; its training step is recompiled.

    Args:
        model: A built Keras model: Functional, Sequential or subclassed. Pass the model
            whose `fit` you call and not a model inside it, because only the training
            step of this model is recompiled.
        layer: The layer to mark, or its name. It can be in a nested model.
        key: The `WatermarkKey` to embed.
        loss: The embedding loss, see `WatermarkRegularizer`. Defaults to `"margin"`.
        strength: The factor of the embedding loss, see `WatermarkRegularizer`.
        margin: The margin m, see `WatermarkRegularizer`.
        variable: Name of the layer's variable to mark, of rank 2 or more. Defaults to
            the layer's only variable of rank 2 or more, or `"kernel"` if it has
            several.
        slot: Number of the key's slot, see `WatermarkRegularizer`. Kernels of one shape
            need a slot each.
        checkpoint: Output path, ending in `.keras`, for the network as it is now,
            before the first step of marking. Keep this file secret: `verify` undoes
            rearranged channels with it, see its argument `checkpoint`. If several
            layers are marked, pass it to the first `attach`. An existing file is never
            overwritten. `None` saves nothing. Defaults to `None`.

    Returns:
        The `WatermarkRegularizer` of the layer's kernel.

    Raises:
        AlignmentError: If `checkpoint` is given, and the model's config does not show
            how its layers are connected.
        FileExistsError: If the file of the checkpoint exists.
        TypeError: If `model` is not a Keras model or `key` not a `WatermarkKey`.
        ValueError: If the layer is not found, is not built, already carries a mark, or
            cannot carry the key's message; or if `checkpoint` is given, and the model
            carries a mark already. The model is then unchanged.

    Example:

    ```python
    key = keras_wm.WatermarkKey.generate("Example Ltd")
    model = keras.saving.load_model("pretrained.keras")
    keras_wm.attach(model, "block4_conv2", key, checkpoint="before.keras")
    model.fit(x, y, callbacks=[keras_wm.BitErrorRate()])
    ```
    """
    check_is_model(model)
    target, kernel = find_kernel(model, layer, variable)
    host = kernel.regularizer
    if isinstance(host, WatermarkRegularizer):
        if host.key is not None:
            raise ValueError(
                f"Layer {target.name!r} already carries a mark: {host!r}. Remove its "
                "penalty with keras_wm.detach(model) first."
            )
        host = host.regularizer
    regularizer = WatermarkRegularizer(key, loss, strength, margin, host, slot)
    # Raises an error if the kernel cannot hold the message.
    key.for_shape(kernel.shape)
    if checkpoint is not None:
        save_checkpoint(model, checkpoint, key.in_slot(regularizer.slot))
    # Inactive regularizers, which were loaded without their key, are removed.
    replace_penalties(target, lambda mark: mark if mark.key else mark.regularizer)
    kernel.regularizer = regularizer
    mark_merged_kernel(target, kernel)
    regularizer.attached_to = weakref.ref(model)
    rebuild_steps(model)
    for marked in find_marked_layers(model):
        if marked.variable is kernel and marked.problem:
            warnings.warn(
                f"The mark on layer {target.name!r} will not be trained: "
                f"{marked.problem}.",
                stacklevel=2,
            )
    warn_of_shared_slots(model)
    return regularizer


def detach(model: KerasModel) -> list[str]:
    """Removes the penalties of all marks from a model, however they were added.

    The marks that are embedded in the weights stay there; they are only not trained any
    more. The host network's own regularizers stay as well. The model's config no longer
    mentions a mark.

    Args:
        model: A Keras model.

    Returns:
        The names of the layers that carried a mark.

    Raises:
        TypeError: If `model` is not a Keras model.

    Example:

    ```python
    keras_wm.detach(model)  # ["block4_conv2"]
    model.fit(x, y)  # trains without a mark
    ```
    """
    check_is_model(model)
    names = [marked.name for marked in find_marked_layers(model)]
    replace_penalties(model, lambda mark: mark.regularizer)
    release_strength(model)
    rebuild_steps(model)
    return names


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
