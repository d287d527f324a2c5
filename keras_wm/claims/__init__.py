"""Claims: what an owner says about a model, dated before the model is released.

All names are imported when they are first used: a verification without a claim needs
none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_wm.utils.lazy import attach

__all__ = [
    "Claim",
    "ClaimedLayer",
    "Dating",
    "Membership",
    "ModelDigest",
    "RecipientsRoot",
    "Stamp",
    "check_stamps",
    "dated",
    "open_claimed_slot",
    "renew",
    "stamp",
    "weight_digest",
]

if TYPE_CHECKING:
    from keras_wm.claims.claim import Claim
    from keras_wm.claims.dating import Dating, check_stamps, dated
    from keras_wm.claims.facts import ClaimedLayer, Stamp
    from keras_wm.claims.model_digest import ModelDigest, weight_digest
    from keras_wm.claims.opening import open_claimed_slot
    from keras_wm.claims.recipients import Membership, RecipientsRoot
    from keras_wm.claims.stamping import renew, stamp

__getattr__, __dir__ = attach(
    __name__,
    {
        "claim": ["Claim"],
        "dating": ["Dating", "check_stamps", "dated"],
        "facts": ["ClaimedLayer", "Stamp"],
        "model_digest": ["ModelDigest", "weight_digest"],
        "opening": ["open_claimed_slot"],
        "recipients": ["Membership", "RecipientsRoot"],
        "stamping": ["renew", "stamp"],
    },
)
