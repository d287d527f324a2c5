"""Claims that are made to be dated first, and to be chosen from later.

A claim fixes choices, so a forger makes his choices before: for a public model whose
descendants he wants to claim, or so many that one of them fits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_wm.claims.claim import Claim
from keras_wm.claims.opening import open_claimed_slot
from keras_wm.research.attacks.forging.forgery import Forgery, fresh_key
from keras_wm.research.attacks.forging.references import crafted_network
from keras_wm.research.attacks.perturbation import NOISE
from keras_wm.scheme.detection import detect

if TYPE_CHECKING:
    from keras_wm.research.attacks.forging.authority import LocalAuthority

# Change of a descendant's kernels, as a share of their size, as by further training.
_DRIFT = 0.1


@dataclass(frozen=True)
class ForgedClaim:
    """A claim with what its maker presents with it later.

    Attributes:
        claim: The `Claim`, which has no time stamp yet.
        forgery: The key, and the arguments of `verify` without those for a claim. Its
            time of one try is without that of a stamp.
        recipients: The recipients that the claim lists.
        controls: Models that were public before the claim, which a verifier asks for.
    """

    claim: Claim
    forgery: Forgery
    recipients: Sequence[str] = ()
    controls: Sequence[Any] = ()

    def presented(self, authority: LocalAuthority) -> Forgery:
        """Returns the forgery with this claim, against a model that appears tomorrow.

        Args:
            authority: The authority that stamps the claim now. The verifier trusts it.
        """
        dating = {
            "claim": authority.stamped(self.claim),
            "published": datetime.now(UTC) + timedelta(days=1),
            "tsa_certificates": authority.roots,
            "controls": self.controls,
        }
        return replace(self.forgery, arguments={**self.forgery.arguments, **dating})


def claim_of_public_base(base: Any, layer: str, seed: int) -> ForgedClaim:
    """Claims a public network, with its channels in the order that a fresh key likes.

    The claim can be stamped today. Later it is older than every descendant of the
    public network, and the first of them is what the forger claims.

    Args:
        base: The public network.
        layer: Name of the layer whose filters are ordered for the key.
        seed: Random seed of the key and the descendant.
    """
    begin = time.process_time()
    key = fresh_key(seed)
    reference = crafted_network(base, layer, key)
    claim = Claim.make(reference, key, {layer: 0})
    seconds = time.process_time() - begin
    descendant = NOISE(base, strength=_DRIFT, seed=seed)
    forgery = Forgery(descendant, key, {"reference": reference}, seconds=seconds)
    return ForgedClaim(claim, forgery, controls=[base])


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
    forgery = Forgery(model, keys[best], {}, tries, seconds, is_search=True)
    return ForgedClaim(claims[best], forgery)


def claim_of_ground_names(model: Any, layer: str, seed: int, tries: int) -> ForgedClaim:
    """Claims a list of so many recipients that the key of one of them fits later.

    The forger shows this key alone, with the proof that it is in the list.

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
    kernel = np.asarray(model.get_layer(layer).kernel)
    best = min(names, key=lambda name: detect(kernel, key.for_recipient(name)).log10_p)
    shown = open_claimed_slot(claim, key, 0, best, names)
    seconds = (time.process_time() - begin) / tries
    # Every name of the list counts as a test, so that more of them gain nothing.
    forgery = Forgery(model, shown, {"layer": layer}, tries, seconds)
    return ForgedClaim(claim, forgery, recipients=names)
