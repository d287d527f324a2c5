"""The claim for a marked model that is being published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_wm.claims.claim import Claim
from keras_wm.claims.facts import ClaimedLayer
from keras_wm.claims.layers import check_marked
from keras_wm.embedding.marked_layers import MarkedLayer, find_marked_layers
from keras_wm.errors import ClaimError
from keras_wm.files import ModelSource
from keras_wm.files.keras_model import weights_in_memory
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.text import printable
from keras_wm.verification.standing import MARKED


def claim_for(
    model: Any,
    written: Path,
    key: WatermarkKey | None,
    checkpoint: ModelSource | None,
    recipients: Sequence[str],
    predecessor: Claim | str | None,
) -> Claim:
    """Makes the claim for a marked model from its marked layers.

    Args:
        model: The marked Keras model.
        written: The file that the model was saved to, without its marks' metadata.
        key: The key whose marks are claimed; `None` if all marks have one key.
        checkpoint: The network before it was marked, as for `Claim.make`.
        recipients: Names of the recipients, as for `Claim.make`.
        predecessor: The claim for an earlier version, as for `Claim.make`.

    Raises:
        ClaimError: If the model does not carry the marks of one key.
    """
    marks = find_marked_layers(model)
    key = key or _only_key(marks)
    marks = [mark for mark in marks if mark.regularizer.commitment == key.commitment]
    if not marks:
        raise ClaimError(
            f"Expected a key whose mark the model carries. Received: {key!r}, which no "
            "marked layer has. A claim is made before the penalty is removed by "
            "keras_wm.detach."
        )
    _check_kernels(marks)
    layers = _claimed_layers(model, marks)
    check_marked(written, layers, key, MARKED)
    return Claim.make(
        written,
        key,
        layers,
        jointly=len(marks) > 1,
        checkpoint=checkpoint,
        recipients=recipients,
        predecessor=predecessor,
    )


def _only_key(marks: Sequence[MarkedLayer]) -> WatermarkKey:
    keys = {mark.regularizer.commitment: mark.regularizer.key for mark in marks}
    if len(keys) != 1:
        commitments = ", ".join(commitment[:8] for commitment in keys) or "none"
        raise ClaimError(
            "Expected a model with the marks of one key, because a claim is made for "
            f"one key. Received marks of: {commitments}. Choose a key with key=."
        )
    (key,) = keys.values()
    if key is None:
        raise ClaimError(
            "Expected a model whose key is loaded. Received one that was loaded or "
            "cloned without it. Pass the key with key=."
        )
    return key


def _check_kernels(marks: Sequence[MarkedLayer]) -> None:
    """Raises ClaimError unless all marked layers still have the marked kernel."""
    lost = [mark.name for mark in marks if mark.kernel is None]
    if lost:
        raise ClaimError(
            f"Expected marked layers with kernels of floats. Received: {lost}, whose "
            "kernels were quantized or replaced. Publish and claim the model before."
        )


def _claimed_layers(model: Any, marks: Sequence[MarkedLayer]) -> list[ClaimedLayer]:
    kernels = {kernel.path: kernel for kernel in weights_in_memory(model)}
    layers = []
    for mark in marks:
        kernel = kernels[printable(mark.variable.path, most=1000)]
        # The layer's name without the variable's, which most files do not store.
        layers.append(ClaimedLayer(kernel.layer, mark.regularizer.slot, kernel.shape))
    return layers
