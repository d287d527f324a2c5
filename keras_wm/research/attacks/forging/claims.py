"""Claims that are made to be dated first, and to be chosen from later.

A claim fixes choices, so a forger makes his choices before: for a public model whose
descendants he wants to claim, or so many that one of them fits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_wm.claims.claim import Claim
from keras_wm.research.attacks.forging.forgery import fresh_key
from keras_wm.research.attacks.forging.references import crafted_network
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey


@dataclass(frozen=True)
class ForgedClaim:
    """A claim with the key and the models that its maker presents with it.

    Attributes:
        claim: The `Claim`, which has no time stamp yet.
        key: The key.
        reference: The reference that the claim names, or `None`.
        recipients: The recipients that the claim lists.
        tries: Number of claims or names that were made.
        seconds: Time of one try, without that of a stamp.
    """

    claim: Claim
    key: WatermarkKey
    reference: Any = None
    recipients: Sequence[str] = ()
    tries: int = 1
    seconds: float = 0.0


def claim_of_public_base(base: Any, layer: str, seed: int) -> ForgedClaim:
    """Claims a public network, with its channels in the order that a fresh key likes.

    The claim can be stamped today. Later it is older than every descendant of the
    public network.

    Args:
        base: The public network.
        layer: Name of the layer whose filters are ordered for the key.
        seed: Random seed of the key.
    """
    begin = time.process_time()
    key = fresh_key(seed)
    reference = crafted_network(base, layer, key)
    claim = Claim.make(reference, key, {layer: 0})
    seconds = time.process_time() - begin
    return ForgedClaim(claim, key, reference, seconds=seconds)


def bulk_claims(model: Any, layer: str, seed: int, tries: int) -> ForgedClaim:
    """Makes many claims, and presents the one whose key fits a later model best.

    Args:
        model: The later model. All claims were dated before it appeared.
        layer: Name of the layer that all of them claim.
        seed: Random seed of the keys.
        tries: Number of claims.
    """
    begin = time.process_time()
    kernel = np.asarray(model.get_layer(layer).kernel)
    keys = [fresh_key(seed + number) for number in range(tries)]
    claims = [Claim.make(model, key, {layer: 0}) for key in keys]
    best = min(range(tries), key=lambda number: detect(kernel, keys[number]).log10_p)
    seconds = (time.process_time() - begin) / tries
    return ForgedClaim(claims[best], keys[best], tries=tries, seconds=seconds)


def claim_of_ground_names(model: Any, layer: str, seed: int, tries: int) -> ForgedClaim:
    """Claims a list of so many recipients that the key of one of them fits later.

    Args:
        model: The later model.
        layer: Name of the layer.
        seed: Random seed of the key.
        tries: Number of recipients in the list.
    """
    begin = time.process_time()
    key = fresh_key(seed)
    names = [f"customer {number}" for number in range(tries)]
    claim = Claim.make(model, key, {layer: 0}, recipients=names)
    seconds = (time.process_time() - begin) / tries
    return ForgedClaim(claim, key, recipients=names, tries=tries, seconds=seconds)
