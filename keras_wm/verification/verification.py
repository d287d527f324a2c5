"""verify: proves a mark in a model file or in a model in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from keras_wm.files import (
    DEFAULT_LIMITS,
    Limits,
    ModelSource,
    Sandbox,
    open_model,
)
from keras_wm.scheme.key import WatermarkKey, check_key
from keras_wm.verification.result import Verification
from keras_wm.verification.search import (
    SearchResult,
    best_of,
    check_slots,
    kernels_to_search,
    keys_in_slots,
    search,
    search_jointly,
)
from keras_wm.verification.standing import (
    MARKED,
    Standing,
    free_choices,
    rank,
    standing_of,
)

if TYPE_CHECKING:
    from keras_wm.alignment.reference import Reference


def verify(
    model: ModelSource,
    key: WatermarkKey,
    layer: str | Sequence[str] | None = None,
    alpha: float = MARKED,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
    reference: ModelSource | None = None,
    reordered: bool = False,
    slots: int = 1,
    checkpoint: ModelSource | None = None,
) -> Verification:
    """Searches a model for the mark of a key.

    A model file is never loaded as a model. Arrays are read from it, one at a time,
    and nothing in it is executed or deserialized. Keras is not imported.

    Args:
        model: Model file, as its path or URL or as an open binary file, in any
            format that `keras_wm.files.open_model_file` reads; or a Keras model.
        key: The `WatermarkKey` to look for.
        layer: Name of the layer to search. `None` searches every kernel that can hold
            the message, and multiplies the p-value by their number. A list of layers
            that were marked with the same key is tested jointly: their scores are
            added bit by bit, and give one p-value. Defaults to `None`.
        alpha: Threshold of the corrected p-value below which the model counts as
            marked. Defaults to 1e-9.
        limits: `Limits` on the resources that reading the file and searching it can
            use. `None` uses the default limits. Defaults to `None`.
        sandbox: Whether to read model files in a child process, so that a crash, a
            hang or excessive use of memory becomes an exception. Pass a `Sandbox` to
            use one child process for several calls. Defaults to `False`.
        reference: Your own marked model, in the same forms as `model`, with its
            config. Permutations, scalings and sign flips of channels are undone by
            comparing the suspect's other weights with it, and each kernel is tested
            both unaligned and aligned. `layer` is then a name in the reference.
            Kernels of the reference that carry the mark in the same slot are not
            compared. Defaults to `None`.
        reordered: Whether to test each kernel also with its filters in the order and
            signs that maximise the score. The p-value is multiplied by the number of
            orders. Needs no reference. Defaults to `False`.
        slots: Number of slots in which each kernel is tested, see
            `WatermarkKey.in_slot`. Each counts as a test. A list of layers is read in
            slots 0, 1 and so on, and needs as many slots as layers. Defaults to 1.
        checkpoint: The network as it was before it was marked, which `attach` saves,
            in the same forms as `reference` and for the same purpose. It depends on
            nothing of the key, so all of its weights are compared, those of the tested
            kernel too. If both are given, both alignments are tested and counted.
            Defaults to `None`.

    Returns:
        A `Verification`.

    Raises:
        ModelFileError: If a file cannot be read or is not a Keras model
            (`UnsupportedFileError`), or is refused as unsafe (`UnsafeFileError`).
        LayerNotFoundError: If the model has no layer of this name.
        AlignmentError: If the reference or the checkpoint does not show how its layers
            are connected.
        TypeError: If `model` or `key` has another type.
        ValueError: If a named layer cannot hold the message, if `alpha` is not
            between 0 and 1, if several layers are combined with `reference`,
            `checkpoint` or `reordered`, or if `slots` is neither 1 nor the number of
            several layers.

    Example:

    ```python
    result = keras_wm.verify("downloaded.keras", key)
    if result.marked:
        print(result)
    ```
    """
    check_key(key)
    check_alpha(alpha)
    check_slots(slots)
    is_aligned = reference is not None or checkpoint is not None
    if layer is not None and not isinstance(layer, str):
        _check_layers(layer, slots, aligned=is_aligned or reordered)
    limits = limits or DEFAULT_LIMITS
    keys = keys_in_slots(key, slots)
    owners = _read_network(reference, limits, sandbox)
    before = _read_network(checkpoint, limits, sandbox)
    notes: list[str] = []
    with open_model(model, limits, sandbox) as suspect:
        if layer is not None and not isinstance(layer, str):
            attempts = search_jointly(suspect, keys, layer, limits)
        elif is_aligned or reordered:
            from keras_wm.verification.aligned_search import aligned_search

            attempts, notes = aligned_search(
                suspect, keys, layer, limits, owners, reordered, before
            )
        else:
            kernels = kernels_to_search(suspect, layer, key)
            results = search(kernels, keys, limits, among=suspect.kernels)
            attempts = [best_of(results)]
    attempts = _with_standing(attempts, key)
    finding = min(
        attempts,
        key=lambda result: rank(result.standing, result.log10_p_corrected, alpha),
    )
    return Verification(
        source=suspect.path,
        owner=key.owner,
        commitment=key.commitment,
        certified=key.certified,
        alpha=alpha,
        finding=finding,
        attempts=attempts,
        recipient=key.recipient,
        notes=_notes(key, finding, notes),
        slots=slots,
    )


def _read_network(
    model: ModelSource | None, limits: Limits, sandbox: bool | Sandbox
) -> Reference | None:
    """Returns a network to align with, or `None` if there is none."""
    if model is None:
        return None
    # Imported late, because most calls need no alignment.
    from keras_wm.alignment.reference import read_reference

    with open_model(model, limits, sandbox) as model_file:
        return read_reference(model_file)


def _with_standing(
    attempts: Sequence[SearchResult], key: WatermarkKey
) -> list[SearchResult]:
    """Returns attempts with their standing, and counts all attempts in each.

    The best of several attempts of one standing is chosen. A private finding can be
    the best of all attempts.
    """
    free = free_choices(key)
    judged = []
    for attempt in attempts:
        choices = attempt.choices | free
        standing = standing_of(choices)
        judged.append(replace(attempt, choices=choices, standing=standing))
    counts = Counter(attempt.standing for attempt in judged)
    counts[Standing.PRIVATE] = len(judged)
    return [_multiplied(attempt, counts[attempt.standing]) for attempt in judged]


def _multiplied(result: SearchResult, factor: int) -> SearchResult:
    """Returns a result whose counted tests are multiplied by a factor."""
    counted, unused = result.counted * factor, result.unused
    if unused is not None:
        unused = replace(unused, counted=counted, choices=result.choices)
    return replace(result, counted=counted, unused=unused)


def _check_layers(layers: Sequence[str], slots: int, aligned: bool) -> None:
    """Raises ValueError if several layers cannot be tested jointly in this way."""
    if aligned:
        raise ValueError(
            "Expected one layer, or None for all, with a reference, a checkpoint or "
            "reordered=True, because several layers are tested jointly without "
            f"alignment. Received: layer={layers!r}"
        )
    if slots not in (1, len(layers)):
        raise ValueError(
            f"Expected slots=1, or a slot for each of the {len(layers)} layers. "
            f"Received: slots={slots}"
        )


def _notes(
    key: WatermarkKey, result: SearchResult, search_notes: Sequence[str]
) -> list[str]:
    """Returns the notes of a report."""
    notes = [key.caveat] if key.caveat else []
    if result.detection is None and result.unused is None:
        notes.append(f"None of the {result.skipped} kernels can hold the message.")
    elif result.detection and result.detection.problem:
        notes.append(f"The kernel is not evidence: {result.detection.problem}.")
    if result.kernel_note:
        notes.append(f"How the kernel was read: {result.kernel_note}.")
    return [*notes, *search_notes]


def check_alpha(alpha: float) -> None:
    """Raises ValueError unless 0 < `alpha` < 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"Expected 0 < alpha < 1. Received: alpha={alpha!r}")
