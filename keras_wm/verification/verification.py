"""Proving a mark: in a file that somebody downloaded, or in a model in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_wm.files import DEFAULT_LIMITS, Limits, ModelFile, Sandbox, select
from keras_wm.files.model_file import open_model
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search import Finding, search
from keras_wm.verification.together import search_together
from keras_wm.verification.verdict import MARKED, Verification

if TYPE_CHECKING:
    from keras_wm.alignment.reference import Reference


def verify(
    model: Any,
    key: WatermarkKey,
    layer: str | Sequence[str] | None = None,
    alpha: float = MARKED,
    limits: Limits = DEFAULT_LIMITS,
    sandbox: bool | Sandbox = False,
    reference: Any = None,
    reordered: bool = False,
) -> Verification:
    """Looks for a key's mark in a model file or a model in memory.

    A file is never loaded as a model: arrays are read from it, one at a time, and
    nothing in it is executed or deserialized. Keras is not imported.

    Args:
        model: A path or URL of a model file or folder, of any kind that
            `keras_wm.files.open_model_file` reads, or a Keras model.
        key: The `WatermarkKey` to look for.
        layer: The layer to look in. `None`, the default, tries every kernel that
            can hold the message and corrects the p-value for their number. A list of
            layers that were marked with the key is read as one: bit by bit, the
            scores of all of them are added, and give one p-value.
        alpha: Marked means a corrected p-value below this. Defaults to 1e-9.
        limits: What a file may ask of this machine. Defaults to `Limits()`.
        sandbox: Whether a file is read in a process of its own, which it may crash,
            hang or bloat at the cost of an error here. A `Sandbox` is used for as
            many files as you like. Defaults to `False`.
        reference: The owner's own marked model, of the kinds that `model` may have,
            with its config. The suspect's channels are put where the owner's are, and
            each kernel is looked at as it is and so. A layer is then named as in the
            reference.
        reordered: Whether the filters of each kernel are also put into the order,
            with the signs, that the key likes best, and the p-value multiplied by the
            number of orders.

    Returns:
        A `Verification`.

    Raises:
        ModelFileError: If the file cannot be read, is refused as unsafe, or is
            not a Keras model.
        LayerNotFoundError: If the layer is not found.
        AlignmentError: If the reference does not tell how its layers are connected.
        ValueError: If the named layer cannot hold the key's message.

    Example:

    ```python
    result = keras_wm.verify("downloaded.keras", key)
    if result.marked:
        print(result)
    ```
    """
    check_key(key)
    check_alpha(alpha)
    found: dict[str, Any]
    if layer is None or isinstance(layer, str):
        owners = None
        if reference is not None:
            from keras_wm.alignment.reference import read_reference

            with open_model(reference, limits, sandbox) as opened:
                owners = read_reference(opened)
        with open_model(model, limits, sandbox) as opened:
            if owners is None and not reordered:
                found = _found_in_one(opened, key, layer, limits)
            else:
                found = _found_by_looks(opened, key, layer, limits, owners, reordered)
    else:
        if reference is not None or reordered:
            raise ValueError(
                "Several layers are read together as they are. Name one layer or none "
                f"with a reference or reordered=True. Received: layer={layer!r}"
            )
        with open_model(model, limits, sandbox) as opened:
            found = _found_in_all(opened, key, layer, limits)
    return Verification(
        source=opened.path,
        owner=key.owner,
        commitment=key.commitment,
        certified=key.certified,
        alpha=alpha,
        recipient=key.recipient,
        **found,
    )


def _found_in_one(
    opened: ModelFile, key: WatermarkKey, layer: str | None, limits: Limits
) -> dict[str, Any]:
    """The fields of a `Verification` that tell of the kernel with the best score."""
    kernels = opened.kernels
    if layer is not None:
        kernels = select(kernels, layer, opened.path)
    (found,) = search(kernels, [key], limits)
    if layer is not None and not found.tried:
        key.check_shape(kernels[0].shape)
    return _fields(found)


def _found_by_looks(
    opened: ModelFile,
    key: WatermarkKey,
    layer: str | None,
    limits: Limits,
    owners: Reference | None,
    reordered: bool,
) -> dict[str, Any]:
    """The same, of the best of several ways of looking at each kernel."""
    from keras_wm.verification.aligned_search import look

    looks = look(opened, key, layer, limits, owners, reordered)
    return {**_fields(looks.best), "looks": looks.each, "remarks": looks.remarks}


def _fields(found: Finding) -> dict[str, Any]:
    return {
        "layer": found.kernel.name if found.kernel else None,
        "detection": found.detection,
        "tried": found.tried,
        "skipped": found.skipped,
        "reading": found.kernel.note if found.kernel else "",
        "log10_arrangements": found.log10_arrangements,
    }


def _found_in_all(
    opened: ModelFile, key: WatermarkKey, layers: Sequence[str], limits: Limits
) -> dict[str, Any]:
    """The fields of a `Verification` that tell of several kernels together."""
    found = search_together(opened.kernels, layers, key, opened.path, limits)
    names = [kernel.name for kernel in found.kernels]
    return {
        "layer": ", ".join(names),
        "detection": found.detection,
        "tried": found.tried,
        "skipped": 0,
        "reading": "; ".join({one.note for one in found.kernels if one.note}),
        "parts": dict(zip(names, found.parts, strict=True)),
    }


def check_key(key: object) -> None:
    """Refuses what is no key."""
    if not isinstance(key, WatermarkKey):
        raise TypeError(
            "Expected a WatermarkKey; read a key file with WatermarkKey.load(path). "
            f"Received: key of type {type(key).__name__}"
        )


def check_alpha(alpha: float) -> None:
    """Refuses what is no probability."""
    if not 0 < alpha < 1:
        raise ValueError(f"Expected 0 < alpha < 1. Received: alpha={alpha!r}")
