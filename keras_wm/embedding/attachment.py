"""Adding a mark's penalty to an existing model, and removing it again."""

from __future__ import annotations

import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from keras_wm.embedding.anchoring.measuring import anchor_for
from keras_wm.embedding.checkpoint import save_checkpoint
from keras_wm.embedding.layer_kernels import find_kernel
from keras_wm.embedding.lora import mark_merged_kernel
from keras_wm.embedding.loss.kernel_projection import Loss
from keras_wm.embedding.marked_layers import (
    check_is_model,
    find_marked_layers,
    rebuild_steps,
    replace_penalties,
    warn_of_shared_slots,
)
from keras_wm.embedding.regularizer import WatermarkRegularizer
from keras_wm.embedding.strength import release_strength
from keras_wm.scheme.key import WatermarkKey, check_key

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
    inputs: Any = None,
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
        inputs: A few hundred examples of the model's inputs, without labels, as `fit`
            takes them: an array, or a list or dict of arrays. What the layer sees of
            them is measured, and the mark is embedded where the layer's function is:
            whoever removes it then changes what the network does. The network has to
            be pretrained or trained for a few epochs before, see `AttachAfter`. The
            measured `Anchor` is kept in the key's slot, in a file beside the key file,
            and is needed to verify the mark. A slot that has an anchor keeps it.
            `None` embeds the mark in all directions of the weights alike, unless the
            slot has an anchor. Defaults to `None`.

    Returns:
        The `WatermarkRegularizer` of the layer's kernel.

    Raises:
        AlignmentError: If `checkpoint` is given, and the model's config does not show
            how its layers are connected.
        FileExistsError: If the file of the checkpoint exists.
        TypeError: If `model` is not a Keras model or `key` not a `WatermarkKey`.
        ValueError: If the layer is not found, is not built, already carries a mark, or
            cannot carry the key's message; if `checkpoint` is given, and the model
            carries a mark already; or if `inputs` are given for a kernel that they
            cannot be measured for, as `measure_anchor` says, or that carries the key's
            mark without an anchor already. The model is then unchanged.

    Example:

    ```python
    key = keras_wm.WatermarkKey.generate("Example Ltd")
    key.save("owner.key")
    model = keras.saving.load_model("pretrained.keras")
    keras_wm.attach(
        model, "block4_conv2", key, checkpoint="before.keras", inputs=x[:512]
    )
    model.fit(x, y, callbacks=[keras_wm.BitErrorRate()])
    ```
    """
    check_is_model(model)
    check_key(key)
    target, kernel = find_kernel(model, layer, variable)
    host = kernel.regularizer
    if isinstance(host, WatermarkRegularizer):
        if host.key is not None:
            raise ValueError(
                f"Layer {target.name!r} already carries a mark: {host!r}. Remove its "
                "penalty with keras_wm.detach(model) first."
            )
        host = host.regularizer
    if slot is not None:
        key = key.in_slot(slot)
    # Raises an error if the kernel cannot hold the message.
    key.for_shape(kernel.shape)
    anchor = None
    if inputs is not None:
        anchor = anchor_for(key, model, target, kernel, inputs)
    regularizer = WatermarkRegularizer(key, loss, strength, margin, host, anchor=anchor)
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
