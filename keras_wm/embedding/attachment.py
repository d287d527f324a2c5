"""Adding a mark's penalty to an existing model, and removing it again."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from keras_wm.embedding.anchoring.measuring import anchors_for
from keras_wm.embedding.checkpoint import save_checkpoint
from keras_wm.embedding.layer_kernels import find_kernel, markable_kernels
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
from keras_wm.scheme.capacity import flat_shape, unseen_margin
from keras_wm.scheme.key import WatermarkKey, check_key

if TYPE_CHECKING:
    from keras_wm.files.keras_model import KerasModel


@overload
def attach(
    model: KerasModel, layer: WatermarkKey, **options: Any
) -> list[WatermarkRegularizer]: ...


@overload
def attach(
    model: KerasModel, layer: None, key: WatermarkKey, **options: Any
) -> list[WatermarkRegularizer]: ...


@overload
def attach(
    model: KerasModel, layer: Any, key: WatermarkKey, *args: Any, **options: Any
) -> WatermarkRegularizer: ...


# The first two take the same options as the last one.
def attach(  # type: ignore[misc]
    model: KerasModel,
    layer: Any,
    key: WatermarkKey | None = None,
    loss: Loss = "margin",
    strength: float | None = None,
    margin: float | None = None,
    variable: str | None = None,
    slot: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    inputs: Any = None,
) -> WatermarkRegularizer | list[WatermarkRegularizer]:
    """Adds a `WatermarkRegularizer` to one layer of a built model, or to all.

    The model may be compiled, pretrained or loaded from a file. The next `fit` embeds
    the mark.

    `attach(model, key)` marks the whole network: every dense and convolutional kernel
    that has room for it, each in a slot of its own from the key's slot on, but not the
    last one before an output, which fine-tuning replaces. To remove the mark, all of
    these layers have to be redrawn. All marks together can be seen as little, and cost
    as much in a step, as a single one. `verify(file, key, slots=n)`
    finds them in any order, with n the number of regularizers that are returned.

    The regularizer is set on the layer's variable, not on the layer. The model's config
    therefore never mentions it, and every checkpoint is free of it. A regularizer that
    the kernel already has remains active. A compiled model remains compiled and keeps
    its optimizer's state; its training step is recompiled.

    Args:
        model: A built Keras model: Functional, Sequential or subclassed. Pass the model
            whose `fit` you call and not a model inside it, because only the training
            step of this model is recompiled.
        layer: The layer to mark, or its name. It can be in a nested model. `None`, or
            the key in its place, marks the whole network.
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
        The `WatermarkRegularizer` of the layer's kernel, or a list of those of all
        kernels, in the order of their slots.

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
    if key is None and isinstance(layer, WatermarkKey):
        layer, key = None, layer
    check_key(key)
    assert key is not None  # noqa: S101 (for the type checker)
    if slot is not None:
        key = key.in_slot(slot)
    if layer is None:
        marks = _whole_network(model, key, inputs is not None, variable, margin)
    else:
        target, kernel = find_kernel(model, layer, variable)
        # Raises an error if the kernel cannot hold the message.
        key.for_shape(kernel.shape)
        marks = [_Mark(target, kernel, key, margin)]
    hosts = [_host_regularizer(mark.layer, mark.kernel) for mark in marks]
    anchors: list[Any] = [None] * len(marks)
    if inputs is not None:
        anchors = anchors_for([mark[:3] for mark in marks], model, inputs)
    weights = sum(prod(mark.kernel.shape) for mark in marks)
    regularizers = []
    for mark, host, anchor in zip(marks, hosts, anchors, strict=True):
        regularizer = WatermarkRegularizer(
            mark.key, loss, strength, mark.margin, host, anchor=anchor
        )
        regularizer.weights_in_all = weights
        regularizers.append(regularizer)
    if checkpoint is not None:
        save_checkpoint(model, checkpoint, key)
    for mark, regularizer in zip(marks, regularizers, strict=True):
        # Inactive regularizers, which were loaded without their key, are removed.
        replace_penalties(mark.layer, lambda old: old if old.key else old.regularizer)
        mark.kernel.regularizer = regularizer
        mark_merged_kernel(mark.layer, mark.kernel)
        regularizer.attached_to = weakref.ref(model)
    rebuild_steps(model)
    _warn_of_untrained(model, marks)
    warn_of_shared_slots(model)
    return regularizers if layer is None else regularizers[0]


class _Mark(NamedTuple):
    """A kernel to mark, with the key in its slot and the margin that was given."""

    layer: Any
    kernel: Any
    key: WatermarkKey
    margin: float | None


def _whole_network(
    model: Any,
    key: WatermarkKey,
    has_inputs: bool,
    variable: str | None,
    margin: float | None,
) -> list[_Mark]:
    """Returns all kernels of a model with room for a mark, each with its own slot.

    Raises:
        ValueError: If there is none, or a kernel is named.
    """
    if variable is not None:
        raise ValueError(
            "Expected variable=None, because all kernels are marked. Received: "
            f"variable={variable!r}"
        )
    kernels = markable_kernels(model, key)
    count, has_anchor = len(kernels), has_inputs or key.anchor is not None
    return [
        _Mark(
            layer,
            kernel,
            key.in_slot(key.slot + number),
            margin
            or unseen_margin(
                key.bits, key.filters, *flat_shape(kernel.shape), has_anchor, count
            ),
        )
        for number, (layer, kernel) in enumerate(kernels)
    ]


def _host_regularizer(layer: Any, kernel: Any) -> Any:
    """Returns the host's own regularizer of a kernel.

    Raises:
        ValueError: If the kernel is being marked.
    """
    host = kernel.regularizer
    if not isinstance(host, WatermarkRegularizer):
        return host
    if host.key is not None:
        raise ValueError(
            f"Layer {layer.name!r} already carries a mark: {host!r}. Remove its "
            "penalty with keras_wm.detach(model) first."
        )
    return host.regularizer


def _warn_of_untrained(model: Any, marks: Sequence[_Mark]) -> None:
    """Warns of marks that the next training will leave out."""
    attached = {id(mark.kernel) for mark in marks}
    for marked in find_marked_layers(model):
        if id(marked.variable) in attached and marked.problem:
            warnings.warn(
                f"The mark on layer {marked.name!r} will not be trained: "
                f"{marked.problem}.",
                stacklevel=3,
            )


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
    rebuild_steps(model)
    return names
