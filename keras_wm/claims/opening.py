"""Showing one slot of a claimed key."""

from __future__ import annotations

from collections.abc import Sequence

from keras_wm.claims.claim import Claim
from keras_wm.claims.recipients import prove_membership
from keras_wm.scheme.key import WatermarkKey


def open_claimed_slot(
    claim: Claim,
    key: WatermarkKey,
    slot: int,
    recipient: str | None = None,
    recipients: Sequence[str] = (),
) -> WatermarkKey:
    """Returns a key that shows one slot of the key that a claim is made for.

    Args:
        claim: The `Claim`.
        key: The owner's key.
        slot: Number of the slot.
        recipient: Name of the recipient whose key is shown. `None` shows a slot of the
            owner's own key. Defaults to `None`.
        recipients: Names of all recipients in the claim, to prove that this one is
            among them.

    Returns:
        An opened `WatermarkKey`, which `claim.check_key` accepts.

    Raises:
        ClaimError: If the claim is not made for the key, the slot or the recipients.
        ValueError: If the key has no slots to show.
    """
    claim.check_key(key)
    if recipient is None:
        opened = key.open_slot(slot)
    else:
        claim.check_recipients(key, recipients)
        proof = prove_membership(key, recipients, len(claim.slots), recipient)
        opened = key.for_recipient(recipient).open_slot(slot, proof.to_plain())
    claim.check_key(opened)
    return opened
