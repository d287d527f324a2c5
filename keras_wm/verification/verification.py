"""verify: proves a mark in a model file or in a model in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log10
from typing import TYPE_CHECKING

from keras_wm.errors import LayerNotFoundError
from keras_wm.files import (
    DEFAULT_LIMITS,
    Limits,
    ModelFile,
    ModelSource,
    Sandbox,
    open_model,
)
from keras_wm.scheme.key import WatermarkKey, check_key
from keras_wm.verification.result import Verification
from keras_wm.verification.search import (
    checked_slots,
    kernels_to_search,
    keys_in_slots,
    search,
    search_jointly,
    usage_notes,
)
from keras_wm.verification.search_result import SearchResult, best_of, judge, strongest
from keras_wm.verification.standing import MARKED, Standing
from keras_wm.verification.together import together

if TYPE_CHECKING:
    from keras_wm.alignment.reference import Reference
    from keras_wm.claims.claim import Claim
    from keras_wm.claims.dating import Certificates
    from keras_wm.verification.claimed import ClaimEvidence, Control, Published


def verify(
    model: ModelSource,
    key: WatermarkKey,
    layer: str | Sequence[str] | None = None,
    alpha: float = MARKED,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
    reference: ModelSource | None = None,
    reordered: bool = False,
    slots: int | None = None,
    checkpoint: ModelSource | None = None,
    claim: Claim | str | os.PathLike[str] | None = None,
    published: Published | None = None,
    controls: Sequence[ModelSource] = (),
    tsa_certificates: Certificates | None = None,
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
            `WatermarkKey.in_slot`. Each counts as a test. If all kernels are searched,
            the most significant kernels of all slots are also tested together, which
            finds a mark that is weak in each of many kernels. A list of layers is read
            in slots 0, 1 and so on, and needs as many slots as layers. Defaults to
            `None`: the slots up to the last one for which the key has an anchor, and
            else 1.
        checkpoint: The network as it was before it was marked, which `attach` saves,
            in the same forms as `reference` and for the same purpose. It depends on
            nothing of the key, so all of its weights are compared, those of the tested
            kernel too. If both are given, both alignments are tested and counted.
            Defaults to `None`.
        claim: The owner's `Claim`, or the path of its file. It can raise the standing
            of a finding from private to claimed, and adds a test of the layers that it
            names. The four arguments from here on are the verifier's. Defaults to
            `None`.
        published: Day, or time, at which the model and everything which it descends
            from first appeared, such as `"2026-03-31"`. The claim must be older.
        controls: Models that were public before the claim and that the model may
            descend from, in the same forms as `model`. If the same test finds the mark
            in one of them, the claim does not count. Defaults to none.
        tsa_certificates: Files with the root certificates, in PEM, of the time-stamping
            authorities that you trust. Other dates of the claim do not count.

    Returns:
        A `Verification`.

    Raises:
        ModelFileError: If a file cannot be read or is not a Keras model
            (`UnsupportedFileError`), or is refused as unsafe (`UnsafeFileError`).
        LayerNotFoundError: If the model has no layer of this name.
        AlignmentError: If the reference or the checkpoint does not show how its layers
            are connected.
        ClaimError: If the file of the claim is not a claim, or `tsa_certificates`
            cannot be read.
        ImportError: If a claim is checked and rfc3161-client is not installed.
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
    several = None if isinstance(layer, str) else layer
    slots = checked_slots(slots, [key] if several is None else ())
    is_aligned = reference is not None or checkpoint is not None
    if several is not None:
        _check_layers(several, slots, aligned=is_aligned or reordered)
    limits = limits or DEFAULT_LIMITS
    if claim is not None:
        from keras_wm.verification.claimed import examine_claim

        sources = {"reference": reference, "checkpoint": checkpoint}
        evidence = examine_claim(
            claim, key, published, tsa_certificates, sources, limits, sandbox
        )
    else:
        evidence = None
        check_no_claim(published, controls, tsa_certificates)
    search_all = _Search(
        keys_in_slots(key, slots),
        layer,
        limits,
        _read_network(reference, limits, sandbox),
        _read_network(checkpoint, limits, sandbox),
        reordered,
        evidence,
    )
    with open_model(model, limits, sandbox) as suspect:
        attempts, notes = search_all.attempts(suspect)
    if evidence is not None and not evidence.problem:
        evidence = evidence.with_controls(
            [search_all.control(control, sandbox, alpha) for control in controls]
        )
    if evidence is not None and not evidence.problem:
        attempts = judge(attempts, key, evidence.fixed, evidence.recipients)
    else:
        attempts = judge(attempts, key, fixed=None)
    finding = strongest(attempts, alpha)
    return Verification(
        source=suspect.path,
        owner=key.owner,
        commitment=key.commitment,
        certified=key.certified,
        alpha=alpha,
        finding=finding,
        attempts=attempts,
        recipient=key.recipient,
        notes=[*_notes(key, finding), *usage_notes(suspect), *notes],
        slots=slots,
        claim=evidence,
    )


@dataclass(frozen=True)
class _Search:
    """All tests that a call of `verify` makes in a model.

    Attributes:
        keys: The key in each slot.
        layer: Name of the layer, or names of several layers, or `None` for all.
        limits: Limits on the work of the search.
        owners: The owner's marked network, for an alignment.
        before: The network before it was marked, for an alignment.
        reordered: Whether filters are also tested in the best order.
        evidence: The claim whose layers are tested, too.
    """

    keys: list[WatermarkKey]
    layer: str | Sequence[str] | None
    limits: Limits
    owners: Reference | None
    before: Reference | None
    reordered: bool
    evidence: ClaimEvidence | None

    def attempts(self, suspect: ModelFile) -> tuple[list[SearchResult], list[str]]:
        """Returns the results of all attempts, and notes on them."""
        attempts, notes = self._usual_attempts(suspect)
        if self.evidence is not None and not self.evidence.problem:
            from keras_wm.verification.claimed import search_claimed

            key, claim = self.keys[0], self.evidence.claim
            attempts.append(search_claimed(suspect, key, claim, self.limits))
        return attempts, notes

    def _usual_attempts(
        self, suspect: ModelFile
    ) -> tuple[list[SearchResult], list[str]]:
        keys, layer, limits = self.keys, self.layer, self.limits
        if layer is not None and not isinstance(layer, str):
            return search_jointly(suspect, keys, layer, limits), []
        if self.owners or self.before or self.reordered:
            from keras_wm.verification.aligned_search import aligned_search

            return aligned_search(
                suspect, keys, layer, limits, self.owners, self.reordered, self.before
            )
        kernels = kernels_to_search(suspect, layer, keys[0])
        results = search(kernels, keys, limits, among=suspect.kernels)
        attempts = [replace(best_of(results), name="all kernels")]
        if layer is None and len(keys) > 1:
            attempts.append(together(results))
        return attempts, []

    def control(
        self, control: ModelSource, sandbox: bool | Sandbox, alpha: float
    ) -> Control:
        """Returns whether the same tests find the mark in a control."""
        from keras_wm.verification.claimed import Control

        with open_model(control, self.limits, sandbox) as model_file:
            try:
                attempts, _ = self.attempts(model_file)
            except LayerNotFoundError:
                # Its layers have other names, so all of them are searched.
                attempts, _ = replace(self, layer=None).attempts(model_file)
        results = judge(attempts, self.keys[0], fixed=None)
        results += [result.unused for result in results if result.unused]
        found = any(result.log10_p_corrected < log10(alpha) for result in results)
        return Control(model_file.path, found)


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


def _notes(key: WatermarkKey, result: SearchResult) -> list[str]:
    """Returns notes on the key, and on the kernel of a finding."""
    is_claimed = result.standing is Standing.CLAIMED
    notes = [key.caveat] if key.caveat and not is_claimed else []
    if result.detection is None and result.unused is None:
        notes.append(f"None of the {result.skipped} kernels can hold the message.")
    elif result.detection and result.detection.problem:
        notes.append(f"The kernel is not evidence: {result.detection.problem}.")
    if result.kernel_note:
        notes.append(f"How the kernel was read: {result.kernel_note}.")
    return notes


def check_no_claim(*arguments: object) -> None:
    """Raises ValueError if arguments that are for a claim were given without one."""
    if any(arguments):
        raise ValueError(
            "Expected published, controls and tsa_certificates together with a claim, "
            "which they are for. Received: claim=None"
        )


def check_alpha(alpha: float) -> None:
    """Raises ValueError unless 0 < `alpha` < 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"Expected 0 < alpha < 1. Received: alpha={alpha!r}")
