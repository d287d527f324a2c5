"""Validation of the values of a claim, which can come from another party."""

from __future__ import annotations

from typing import Any, get_args

from keras_wm.claims.checks import (
    check_count,
    check_digest,
    check_flag,
    check_kind,
    check_text,
    check_tuple,
    unexpected,
)
from keras_wm.claims.facts import MOST_SLOTS, ClaimedLayer, Stamp
from keras_wm.claims.model_digest import ModelDigest
from keras_wm.claims.recipients import RecipientsRoot
from keras_wm.errors import ClaimError
from keras_wm.scheme.secret_source import Filters, Projection

# The projection of a key that was given as arrays.
EXPLICIT = "explicit"
_MOST_LAYERS = 2**14
_MOST_STAMPS = 64
_MOST_BITS = 2**31


def check_values(claim: Any) -> None:
    """Raises ClaimError unless all values of a claim have the right types and ranges.

    See docs/claim.md for the rules.

    Args:
        claim: A `Claim`. Its module imports this one.
    """
    _check_key(claim)
    _check_layers(claim)
    for name in ("jointly", "released"):
        check_flag(name, getattr(claim, name))
    check_digest("nonce", claim.nonce)
    check_kind("model", claim.model, ModelDigest, optional=False)
    check_kind("checkpoint", claim.checkpoint, ModelDigest, optional=True)
    if claim.checkpoint and claim.checkpoint.weights == claim.model.weights:
        raise ClaimError(
            "Expected a checkpoint from before the mark. Received the model itself."
        )
    check_kind("recipients", claim.recipients, RecipientsRoot, optional=True)
    if claim.predecessor is not None:
        check_digest("predecessor", claim.predecessor)
    check_tuple("stamps", claim.stamps, Stamp, _MOST_STAMPS)
    if claim.stamps and claim.stamps[0].renewal:
        raise unexpected("stamps", "a stamp before the first renewal", claim.stamps)


def _check_key(claim: Any) -> None:
    check_digest("commitment", claim.commitment)
    check_text("owner", claim.owner)
    check_count("bits", claim.bits, 1, _MOST_BITS)
    for name, choices in (
        ("projection", (*get_args(Projection), EXPLICIT)),
        ("filters", get_args(Filters)),
    ):
        value = getattr(claim, name)
        if not isinstance(value, str) or value not in choices:
            raise unexpected(name, f"one of {', '.join(choices)}", value)
    check_tuple("slots", claim.slots, str, MOST_SLOTS)
    for digest in claim.slots:
        check_digest("slots", digest)
    if bool(claim.slots) == (claim.projection == EXPLICIT):
        expected = "a digest of each slot, and none of an explicit key"
        raise unexpected("slots", expected, claim.slots)


def _check_layers(claim: Any) -> None:
    check_tuple("layers", claim.layers, ClaimedLayer, _MOST_LAYERS)
    # A layer can have several kernels, such as those of a recurrent layer.
    kernels = {(layer.name, layer.shape) for layer in claim.layers}
    if not kernels or len(kernels) < len(claim.layers):
        raise unexpected("layers", "at least one layer, and each once", claim.layers)
    if claim.jointly is True and len(kernels) < 2:
        expected = "several layers that are read as one"
        raise unexpected("layers", expected, claim.layers)
    slots = max(1, len(claim.slots))
    for layer in claim.layers:
        if layer.slot >= slots:
            raise unexpected("slot", f"a slot below {slots}", layer.slot)
