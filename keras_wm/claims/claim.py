"""The claim: what an owner says about a model, to be dated before it is released."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from keras_wm.claims.claim_file import canonical, read_claim, write_claim
from keras_wm.claims.facts import PUBLIC_FACTS, ClaimedLayer, Stamp
from keras_wm.claims.layers import find_layers
from keras_wm.claims.model_digest import ModelDigest
from keras_wm.claims.recipients import (
    RecipientsRoot,
    check_opened_recipient,
    recipients_root,
)
from keras_wm.claims.validation import EXPLICIT, check_values
from keras_wm.errors import ClaimError
from keras_wm.files import Limits, ModelSource, Sandbox
from keras_wm.scheme.key import WatermarkKey, check_key
from keras_wm.utils.fields import join_fields
from keras_wm.utils.text import printable

_DOMAIN = "keras_wm claim 1"
_RENEWAL = "keras_wm claim renewal 1"


@dataclass(frozen=True)
class Claim:
    """A statement of an owner about a model, made before it is released.

    A claim fixes what could be chosen later to suit a disputed model: the key, the
    marked layers with their slots, the model itself, a checkpoint from before the mark,
    and the recipients. Its owner keeps the file. Its `digest` reveals nothing and is
    dated: by a time-stamping authority (`keras_wm.claims.stamp`), in a git commit, or
    by a notary. docs/claim.md specifies the format.

    Make a claim with `Claim.make` or `keras_wm.publish(..., claim=path)`.

    Attributes:
        commitment: The key's commitment.
        owner: Name of the owner.
        bits: T, the length of the message.
        projection: Type of the key's projection.
        filters: Type of the key's filter weights.
        slots: Commitments to the key's slots 0, 1 and so on, each with the anchor that
            it had then. Empty for an explicit key.
        layers: The marked layers, each a `ClaimedLayer`.
        jointly: Whether the layers are read as one test.
        model: `ModelDigest` of the model.
        nonce: Random digits, so that nobody can guess the claim from its digest.
        checkpoint: `ModelDigest` of the network before it was marked, or `None`.
        recipients: `RecipientsRoot` of the list of recipients, or `None`.
        predecessor: Digest of the claim for an earlier version, or `None`.
        released: Whether the model was already public when the claim was made.
        stamps: Time stamps of the digest. They are not a part of it.

    Example:

    ```python
    claim = keras_wm.Claim.make("model.keras", key, {"block4_conv2": 0})
    claim = keras_wm.claims.stamp(claim, "https://authority.example/tsr")
    claim.save("model.claim")
    ```
    """

    commitment: str
    owner: str
    bits: int
    projection: str
    filters: str
    slots: tuple[str, ...]
    layers: tuple[ClaimedLayer, ...]
    jointly: bool
    model: ModelDigest
    nonce: str
    checkpoint: ModelDigest | None = None
    recipients: RecipientsRoot | None = None
    predecessor: str | None = None
    released: bool = False
    stamps: tuple[Stamp, ...] = ()

    def __post_init__(self) -> None:
        check_values(self)

    @classmethod
    def make(
        cls,
        model: ModelSource,
        key: WatermarkKey,
        layers: Mapping[str, int] | Sequence[ClaimedLayer],
        *,
        jointly: bool = False,
        checkpoint: ModelSource | None = None,
        recipients: Sequence[str] = (),
        predecessor: Claim | str | None = None,
        released: bool = False,
        limits: Limits | None = None,
        sandbox: bool | Sandbox = False,
    ) -> Claim:
        """Makes the claim for a model.

        Args:
            model: The model: its file, as its path or URL or as an open binary file, or
                a Keras model.
            key: The owner's `WatermarkKey`.
            layers: The slot of each marked layer by the layer's name, as `verify` takes
                it; or the `ClaimedLayer`s.
            jointly: Whether the layers are read as one test. Defaults to `False`.
            checkpoint: The network as it was before it was marked, in the same forms as
                `model`. Defaults to `None`.
            recipients: Names of all recipients whose copies are marked with keys from
                `key.for_recipient`. Defaults to none.
            predecessor: The claim for an earlier version of the model, or its digest.
            released: Whether the model was already public when the claim was made.
            limits: `Limits` on the resources that reading the files can use.
            sandbox: Whether to read files in a child process, or the `Sandbox` to read
                them in. Defaults to `False`.

        Returns:
            A `Claim`.

        Raises:
            ModelFileError: If a file cannot be read.
            LayerNotFoundError: If the model has no layer of a name.
            ClaimError: If a layer has several kernels that can hold the message, or the
                key is a recipient's or has choices that are not certified.
            TypeError: If `model` or `key` has another type.
        """
        _check_claimable(key)
        if isinstance(layers, Mapping):
            layers = find_layers(model, layers, key, limits, sandbox)
        digest = predecessor.digest if isinstance(predecessor, Claim) else predecessor
        last = max((layer.slot for layer in layers), default=0)
        slots = (
            tuple(map(key.slot_commitment, range(last + 1))) if key.certified else ()
        )
        return cls(
            **{name: getattr(key, name) for name in PUBLIC_FACTS},
            slots=slots,
            layers=tuple(layers),
            jointly=jointly,
            model=ModelDigest.of(model, limits, sandbox),
            nonce=secrets.token_hex(32),
            checkpoint=None
            if checkpoint is None
            else ModelDigest.of(checkpoint, limits, sandbox),
            recipients=recipients_root(key, recipients, len(slots))
            if recipients
            else None,
            predecessor=digest,
            released=released,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Claim:
        """Reads a claim, which can be another party's. It is not trusted.

        Args:
            path: Path of the file.

        Returns:
            A `Claim`.

        Raises:
            ClaimError: If the file is missing, damaged, too large, or not a claim.
        """
        with read_claim(path) as fields:
            return cls(**fields)

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Writes the claim to a file, completely or not at all.

        Args:
            path: Path of the file.
            overwrite: Whether to replace an existing file. A claim that was dated
                cannot be made again, because it contains random digits, so this
                defaults to `False`.

        Returns:
            The path.

        Raises:
            FileExistsError: If the file exists and `overwrite` is `False`.
        """
        return write_claim(Path(path), self.facts(), self.stamps, overwrite)

    @cached_property
    def digest(self) -> str:
        """The digest to be dated: 64 hexadecimal digits that reveal nothing."""
        return hashlib.sha256(self.stamped_bytes()).hexdigest()

    def facts(self) -> dict[str, object]:
        """Returns what the digest covers, as plain values."""
        return {
            "key": {name: getattr(self, name) for name in PUBLIC_FACTS},
            "slots": list(self.slots),
            "layers": [
                {"name": layer.name, "slot": layer.slot, "shape": list(layer.shape)}
                for layer in self.layers
            ],
            "jointly": self.jointly,
            "model": vars(self.model),
            "checkpoint": vars(self.checkpoint) if self.checkpoint else None,
            "recipients": vars(self.recipients) if self.recipients else None,
            "predecessor": self.predecessor,
            "released": self.released,
            "nonce": self.nonce,
        }

    def stamped_bytes(self, stamps: Sequence[Stamp] = ()) -> bytes:
        """Returns the bytes whose hash an authority stamps.

        Args:
            stamps: The earlier stamps that a renewal covers.
        """
        content = canonical(self.facts())
        if not stamps:
            return join_fields(_DOMAIN, content)
        return join_fields(_RENEWAL, content, *(stamp.response for stamp in stamps))

    def with_stamp(self, stamp: Stamp) -> Claim:
        """Returns the same claim with another stamp."""
        return replace(self, stamps=(*self.stamps, stamp))

    def check_key(self, key: WatermarkKey) -> None:
        """Raises ClaimError unless the claim is made for a key.

        Args:
            key: The owner's key, or one slot of it, from `WatermarkKey.open_slot`. An
                opened slot of a recipient's key needs a proof of membership.
        """
        check_key(key)
        if key.recipient:
            check_opened_recipient(key, self.recipients)
        # A recipient's key has a commitment and a kind of projection of its own.
        for name in ("owner", "bits") if key.recipient else PUBLIC_FACTS:
            claimed, received = getattr(self, name), getattr(key, name)
            if claimed != received:
                raise ClaimError(
                    f"The claim is made for another key. Expected {name}="
                    f"{printable(repr(claimed))}. Received: {printable(repr(received))}"
                )
        if key.recipient:
            return
        for slot in [key.slot] if key.opened else range(len(self.slots)):
            if self.slots[slot : slot + 1] != (key.slot_commitment(slot),):
                raise ClaimError(
                    f"The claim names another seed for slot {slot} than the key has, "
                    "or another anchor. Use the claim that was made with this key, and "
                    "another slot for a new anchor."
                )

    def check_recipients(self, key: WatermarkKey, names: Sequence[str]) -> None:
        """Raises ClaimError unless the claim is made for this list of recipients.

        Args:
            key: The owner's key.
            names: Names of all recipients, in any order.
        """
        received = recipients_root(key, names, len(self.slots))
        if received != self.recipients:
            number = self.recipients.number if self.recipients else 0
            raise ClaimError(
                f"Expected the {number:,} recipients that the claim was made with. "
                f"Received: {len(names):,} names, not the same ones."
            )


def _check_claimable(key: WatermarkKey) -> None:
    check_key(key)
    if key.recipient:
        raise ClaimError(
            "Expected the owner's own key, because a claim lists recipients by "
            f"recipients=. Received: the key of the recipient {key.recipient!r}"
        )
    if not key.certified and key.projection != EXPLICIT:
        raise ClaimError(
            "Expected a key from WatermarkKey.generate, or one that was given as "
            f"arrays. Received: {key!r}, which serves research only."
        )
