"""The marked layers of a model, as a claim names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10

from keras_wm.claims.facts import ClaimedLayer
from keras_wm.errors import ClaimError
from keras_wm.files import (
    Kernel,
    Limits,
    ModelFile,
    ModelSource,
    Sandbox,
    open_model,
    select,
)
from keras_wm.scheme.detection import detect, detect_jointly, format_p
from keras_wm.scheme.key import WatermarkKey


def claimed_kernels(opened: ModelFile, layer: ClaimedLayer) -> list[Kernel]:
    """Returns the kernels of a model that a claim names: those of a name and shape.

    Raises:
        LayerNotFoundError: If the model has no layer of the name.
    """
    kernels = select(opened.kernels, layer.name, opened.path)
    return [kernel for kernel in kernels if kernel.shape == layer.shape]


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
        layers = []
        for name, slot in slots.items():
            kernels = select(opened.kernels, name, opened.path)
            kernel = _marked_kernel(kernels, name, key, slot)
            layers.append(ClaimedLayer(name, slot, kernel.shape))
        return layers


def search_layers(
    model: ModelSource,
    key: WatermarkKey,
    slots: int,
    alpha: float,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
) -> list[ClaimedLayer]:
    """Returns the layers of a model in which a key's mark is found.

    Args:
        model: The model file or Keras model.
        key: The owner's key.
        slots: Number of slots in which each kernel is tested.
        alpha: Threshold of the p-value, multiplied by the number of tests.
        limits: `Limits` on the resources that reading the file can use.
        sandbox: Whether to read the file in a child process, or the `Sandbox`.

    Returns:
        The layers, each in the slot with the smallest p-value; none if no mark is
        found.
    """
    found: dict[str, tuple[float, ClaimedLayer]] = {}
    in_slots = [key.in_slot(slot) for slot in range(slots)]
    with open_model(model, limits, sandbox) as opened:
        fitting = {
            kernel: [member for member in in_slots if member.fits(kernel.shape)]
            for kernel in opened.kernels
        }
        tests = sum(map(len, fitting.values()))
        threshold = log10(alpha) - log10(max(1, tests))
        for kernel, members in fitting.items():
            if not members:
                continue
            values = kernel.read()
            for member in members:
                log10_p, slot = detect(values, member).log10_p, member.slot
                # An array can be listed as several kernels, with its axes in other
                # orders.
                best, _ = found.get(kernel.path, (threshold, None))
                if log10_p < best:
                    layer = ClaimedLayer(kernel.layer, slot, kernel.shape)
                    found[kernel.path] = log10_p, layer
    return [layer for _, layer in found.values()]


def check_marked(
    model: ModelSource,
    layers: Sequence[ClaimedLayer],
    key: WatermarkKey,
    alpha: float,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
) -> None:
    """Raises ClaimError unless a key's mark is in the claimed layers of a model.

    See `search_layers` for the arguments. Several layers are tested jointly.
    """
    with open_model(model, limits, sandbox) as opened:
        marks = [
            (kernel, key.in_slot(layer.slot))
            for layer in layers
            for kernel in claimed_kernels(opened, layer)
        ]
        detection = detect_jointly((kernel.read(), slot) for kernel, slot in marks)
    if detection.log10_p >= log10(alpha):
        names = ", ".join(repr(layer.name) for layer in layers)
        raise ClaimError(
            f"Expected a model that carries the mark. Received: p-value "
            f"{format_p(detection.log10_p)} in {names}. Train the model until "
            "BitErrorRate logs a ber of 0, and check layers and slots."
        )


def _marked_kernel(
    kernels: list[Kernel], name: str, key: WatermarkKey, slot: int
) -> Kernel:
    in_slot = key.in_slot(slot)
    fitting = [kernel for kernel in kernels if in_slot.fits(kernel.shape)]
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
    return min(fitting, key=lambda kernel: detect(kernel.read(), in_slot).log10_p)
