"""The marked layers of a model, as a claim names them."""

from __future__ import annotations

from collections.abc import Mapping

from keras_wm.claims.facts import ClaimedLayer
from keras_wm.errors import ClaimError
from keras_wm.files import Kernel, Limits, ModelSource, Sandbox, open_model, select
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey


def find_layers(
    model: ModelSource,
    slots: Mapping[str, int],
    key: WatermarkKey,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
) -> list[ClaimedLayer]:
    """Returns the claimed layers of a model with the shapes of their kernels.

    Args:
        model: The model file or Keras model.
        slots: The slot of each layer by the layer's name.
        key: The owner's key.
        limits: `Limits` on the resources that reading the file can use.
        sandbox: Whether to read the file in a child process, or the `Sandbox`.

    Raises:
        LayerNotFoundError: If the model has no layer of a name.
        ClaimError: If several kernels of a layer can hold the message, or none.
    """
    with open_model(model, limits, sandbox) as opened:
        return [
            ClaimedLayer(
                name,
                slot,
                _marked_kernel(
                    select(opened.kernels, name, opened.path), name, key, slot
                ).shape,
            )
            for name, slot in slots.items()
        ]


def _marked_kernel(
    kernels: list[Kernel], name: str, key: WatermarkKey, slot: int
) -> Kernel:
    fitting = [kernel for kernel in kernels if _fits(kernel, key)]
    arrays = {kernel.path: kernel.name for kernel in fitting}
    if len(arrays) != 1:
        names = ", ".join(map(repr, arrays.values())) or "none"
        raise ClaimError(
            f"Expected a layer with one kernel that can hold {key.bits} bits. "
            f"Received: {name!r}, where these can: {names}. Name one of them."
        )
    if len(fitting) == 1:
        return fitting[0]
    # An array can be a kernel in several orders of its axes. One of them is marked.
    in_slot = key.in_slot(slot)
    return min(fitting, key=lambda kernel: detect(kernel.read(), in_slot).log10_p)


def _fits(kernel: Kernel, key: WatermarkKey) -> bool:
    try:
        key.for_shape(kernel.shape)
    except ValueError:
        return False
    return True
