"""Source of an opened key: the seed of one slot, without the rest of the key.

An owner who shows a whole key shows where all its marks are. The seed of one slot shows
the arrays of this slot only. That the seed belongs to the key cannot be seen from the
commitment, but from the commitments to slots in a claim.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, cast

from keras_wm.scheme.key_file import Payload
from keras_wm.scheme.recipient_source import RecipientSource
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import Filters, Projection, SecretSource
from keras_wm.scheme.streams import KernelStreams
from keras_wm.utils.arguments import is_integer

_HEX = re.compile("[0-9a-f]{64}")


class SlotSource:
    """The seed of one slot, and the public choices of the key it was derived from.

    Args:
        secret: The seed of the slot.
        commitment: Commitment of the whole key.
        slot: Number of the slot.
        owner: Name of the owner.
        bits: T, the length of the message.
        projection: Type of X, as in `SecretSource`. Ignored for a recipient's key.
        filters: Type of a, as in `SecretSource`. Ignored for a recipient's key.
        recipient: Name of the recipient, or an empty string for the owner's own key.
        membership: Proof that the recipient is in the list of a claim, as plain values.

    Raises:
        ValueError: If a field is not valid.
    """

    certified: ClassVar[bool] = False

    def __init__(
        self,
        secret: Secret,
        commitment: str,
        slot: int,
        owner: str,
        bits: int,
        projection: str = "",
        filters: str = "",
        recipient: str = "",
        membership: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(commitment, str) or not _HEX.fullmatch(commitment):
            raise ValueError("Expected a commitment of 64 hexadecimal digits.")
        if not is_integer(slot, 0):
            raise ValueError(f"Expected a slot, 0 or more. Received: slot={slot!r}")
        self.arrays: SecretSource | RecipientSource
        if recipient:
            self.arrays = RecipientSource(secret, owner, bits, recipient)
        else:
            kinds = cast(Projection, projection), cast(Filters, filters)
            self.arrays = SecretSource(secret, owner, bits, *kinds)
        # In place of the streams that would be derived from a root.
        vars(self.arrays)["_streams"] = _OneSlot(slot, secret, commitment)
        self.slot = slot
        self.membership = membership
        self.owner, self.bits = self.arrays.owner, bits
        self.projection: str = self.arrays.projection
        self.filters: str = self.arrays.filters
        self.groups = self.arrays.groups
        self.recipient = self.arrays.recipient
        self._seed, self._commitment = secret, commitment

    def for_recipient(self, recipient: str) -> NoReturn:
        """Raises ValueError: another key can only be derived from a root."""
        raise ValueError(
            f"This key shows slot {self.slot} only, and a recipient's key cannot be "
            "derived from it. Use the owner's key file."
        )

    def commitment(self) -> str:
        """Returns the commitment of the whole key, which the seed does not prove."""
        return self._commitment

    def slot_commitment(self, slot: int, anchor: str = "") -> str:
        """Returns 64 hexadecimal digits that determine the slot's seed and anchor."""
        return self.arrays.slot_commitment(slot, anchor)

    def payload(self) -> Payload:
        """Returns the fields of a key file."""
        fields: Payload = {"commitment": self._commitment, "slot": self.slot}
        names = ["owner", "bits"]
        names += ["recipient"] if self.recipient else ["projection", "filters"]
        names += ["membership"] if self.membership is not None else []
        fields |= {name: getattr(self, name) for name in names}
        return {**fields, "secret": self._seed}


class _OneSlot(KernelStreams):
    """The streams of all kernels in one slot."""

    def __init__(self, slot: int, seed: Secret, commitment: str) -> None:
        self._slot, self._seed, self._commitment = slot, seed, commitment

    def seed(self, slot: int) -> Secret:
        """Returns the seed of the slot; raises ValueError for any other slot."""
        if slot != self._slot:
            raise ValueError(unopened(self._commitment, self._slot, slot))
        return self._seed


def unopened(commitment: str, opened: int, slot: int) -> str:
    """Returns the message for a slot that an opened key does not show."""
    return (
        f"The opened key {commitment[:8]} shows slot {opened} only. Expected slot "
        f"{opened}. Received: slot={slot}. Ask the owner to open this slot too."
    )
