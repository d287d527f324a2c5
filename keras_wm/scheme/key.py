"""The owner's key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, Self

from numpy.typing import ArrayLike

from keras_wm.errors import KeyFileError
from keras_wm.scheme.anchor import Anchor
from keras_wm.scheme.anchor_store import AnchorStore
from keras_wm.scheme.array_source import ArraySource, load_array
from keras_wm.scheme.capacity import USUAL_BITS, check_bits, flat_shape
from keras_wm.scheme.kernel_key import KernelKey, Source
from keras_wm.scheme.key_file import Payload, read_key, write_key
from keras_wm.scheme.live_keys import register
from keras_wm.scheme.recipient_source import RecipientSource
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import Filters, Projection, SecretSource
from keras_wm.scheme.slot_source import SlotSource, unopened
from keras_wm.scheme.streams import Place
from keras_wm.utils.arguments import is_integer


class WatermarkKey:
    r"""The secret of a watermark, and everything that is derived from it.

    A key is 32 secret bytes and some public choices. Their root is computed by scrypt.
    The message b, the projection X and the filter weights a for kernels of any shape
    are derived from the root by SHAKE-256 (see docs/key.md), so nobody can choose them
    to suit a given model, and each trial costs a whole derivation. Bit j of the message
    is read from a kernel W of shape (M, L) as the sign of

    \[y_j = x_j \cdot W a_{j \bmod G}.\]

    Create a key with `generate` or read one with `load`. `from_arrays` and
    `from_reference` use a given projection and message, as in the papers (Uchida et al.
    2017, Nagai et al. 2018). Such a key works, but proves nothing by itself.

    A key cannot be pickled, and neither its repr nor a traceback shows its secret.

    Args:
        source: Source of the key. Use one of the methods above instead.
        limited: Whether to raise an error for kernels that are too small for the
            message.
        slot: Number of the slot, from 0. Use `in_slot` instead.
        anchors: The anchors of the slots that have one. Use `with_anchor` instead.

    Example:

    ```python
    key = keras_wm.WatermarkKey.generate("Example Ltd")
    key.save("example.key")
    print(key.commitment)  # Can be published, to prove the key's age.
    ```

    Attributes:
        owner: Name of the owner.
        bits: T, the length of the message.
        projection: `"random"`, `"direct"`, `"diff"` or `"explicit"`; in a recipient's
            key `"sums"`.
        filters: `"keyed"` or `"mean"`; in a recipient's key `"blocks"`.
        groups: G, the number of vectors that the bits are read from.
        recipient: Name of the recipient whose copy is marked (see `for_recipient`), or
            an empty string.
        slot: Number of the slot (see `in_slot`), 0 in a new key.
        anchors: The anchors of the slots that have one, which all copies of the key
            share.
        certified: Whether everything is derived from a secret, so that finding the mark
            is evidence by itself.
        commitment: SHA-256 of the key, 64 hexadecimal digits that do not reveal the
            secret. Publish it with a date (in a git commit, through a timestamping
            service) before the model is released. It later proves that the key is
            older than the dispute.
    """

    def __init__(
        self,
        source: Source | SlotSource,
        *,
        limited: bool = True,
        slot: int = 0,
        anchors: AnchorStore | None = None,
    ) -> None:
        if not is_integer(slot, 0):
            raise ValueError(
                f"Expected the number of a slot, 0 or more. Received: slot={slot!r}"
            )
        if slot and isinstance(source, ArraySource):
            raise ValueError(
                "A key that was given as arrays has the same arrays in each slot. "
                f"Expected slot 0. Received: slot={slot}"
            )
        # Keys of one commitment can differ in the seed that an opened one shows.
        self._identity = source.commitment()
        self._arrays: Source
        if isinstance(source, SlotSource):
            if slot != source.slot:
                raise ValueError(unopened(source.commitment(), source.slot, slot))
            self._identity += f" slot {source.slot_commitment(slot)}"
            self._arrays = source.arrays
        else:
            self._arrays = source
        self._source = source
        self._limited = limited
        self.slot = slot
        self.owner = source.owner
        self.bits = source.bits
        self.projection: str = source.projection
        self.filters: str = source.filters
        self.groups = source.groups
        self.recipient = source.recipient
        self.certified = source.certified
        self.commitment: Final = source.commitment()
        self.anchors = anchors or AnchorStore(self.commitment)
        register(self)

    @classmethod
    def generate(
        cls,
        owner: str,
        bits: int = USUAL_BITS,
        projection: Projection = "random",
        filters: Filters = "keyed",
    ) -> WatermarkKey:
        """Creates a key with a new secret from the operating system.

        Args:
            owner: Name of the owner, such as a company or an e-mail address. The
                message depends on it.
            bits: T, the length of the message. A kernel can hold a limited amount of
                evidence, which all bits share: the fewer bits, the harder it is to flip
                one of them. By chance all of 64 bits are correct with probability
                2**-64. Defaults to 64.
            projection: Type of X. `"random"`: normal deviates. `"direct"`: one weight
                per bit. `"diff"`: the difference of two weights per bit. Defaults to
                `"random"`.
            filters: `"keyed"` spreads the mark over all filters with secret signs, half
                of them +1, so that the mean filter is not used. `"mean"` puts it into
                the mean filter, as in the papers. Defaults to `"keyed"`.

        Returns:
            A `WatermarkKey`.

        Raises:
            ValueError: If an argument is not valid.
        """
        secret = Secret.generate()
        return cls(SecretSource(secret, owner, bits, projection, filters))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], passphrase: str | None = None
    ) -> WatermarkKey:
        """Reads a key file that `save` wrote, and the anchors beside it.

        Args:
            path: Path of the key file.
            passphrase: Passphrase that the file was encrypted with, if any.

        Returns:
            A `WatermarkKey`.

        Raises:
            KeyFileError: If one of the files is damaged, tampered with, or was written
                by a newer version, or the key file is missing.
            WrongPassphraseError: If the passphrase is missing or wrong.
        """
        payload = read_key(path, passphrase)
        try:
            key = cls.from_payload(payload)
        except (KeyError, TypeError, ValueError) as error:
            raise KeyFileError(
                f"{os.fspath(path)!r} is not a valid key: {error}"
            ) from error
        key.anchors.keep_beside(path)
        return key

    @classmethod
    def from_payload(cls, payload: Payload) -> WatermarkKey:
        """Returns the key that the fields of a key file describe."""
        if "slot" in payload:
            opened = SlotSource(**payload)
            return cls(opened, slot=opened.slot)
        if "recipient" in payload:
            return cls(RecipientSource(**payload))
        if "secret" in payload:
            return cls(SecretSource(**payload))
        return cls(ArraySource.from_payload(payload))

    @classmethod
    def from_arrays(cls, matrix: ArrayLike, message: ArrayLike) -> WatermarkKey:
        """Creates a key from a given projection and message.

        Such a key uses the mean filter, as in the papers. It proves nothing by itself:
        for given weights, anybody can compute a projection that reads any message (Fan
        et al. 2019).

        Args:
            matrix: X, shape `(T, M)`.
            message: b, T values of 0 and 1.

        Returns:
            A `WatermarkKey` with `certified=False`.

        Raises:
            ValueError: If the shapes or values are not valid.
        """
        return cls(ArraySource(matrix, message))

    @classmethod
    def from_reference(
        cls, matrix_path: str | os.PathLike[str], message_path: str | os.PathLike[str]
    ) -> WatermarkKey:
        """Creates a key from the files of the papers' reference code.

        Args:
            matrix_path: Path of the `*_w.npy` file, a matrix of shape `(M, T)`.
            message_path: Path of the `*_b.npy` file.

        Returns:
            A `WatermarkKey` with `certified=False`.

        Raises:
            KeyFileError: If a file cannot be read.
            ValueError: If the shapes or values are not valid.
        """
        return cls.from_arrays(load_array(matrix_path).T, load_array(message_path))

    def for_recipient(self, recipient: str) -> WatermarkKey:
        """Derives the key that marks one recipient's copy of the model.

        Its secret is derived from this key's secret, which cannot be computed from it,
        so the derived key can be given to the person who prepares the copy. Its mark is
        spread over all weights of the kernel, whatever projection and filters this key
        has. Marks of several recipients do not disturb each other or the owner's mark.
        A combination of several copies contains the marks of all of them, and comparing
        the copies does not help to remove them. `keras_wm.identify` finds the
        recipients whose marks are in a file.

        Args:
            recipient: Name of the recipient, such as a customer number.

        Returns:
            A `WatermarkKey` with the same owner and number of bits.

        Raises:
            ValueError: If the name is empty, this is already a recipient's key, or this
                key was given as arrays.

        Example:

        ```python
        copy_key = key.for_recipient("customer-17")
        keras_wm.attach(model, "block4_conv2", copy_key)
        ```
        """
        source = self._source.for_recipient(recipient)
        anchors = self.anchors.for_key(source.commitment())
        return self._with(source=source, anchors=anchors)

    def in_slot(self, slot: int) -> WatermarkKey:
        """Returns this key in another slot.

        In each slot, a key has other arrays for the same kernel. A network that carries
        the mark in several kernels needs a slot for each of them: with the same
        projection, kernels of one shape would be correlated, and anybody could measure
        that without a key.

        The slot is not a part of the key file.

        Args:
            slot: Number of the slot, from 0.

        Returns:
            A `WatermarkKey` with the same commitment.

        Raises:
            ValueError: If the number is negative, or this key was given as arrays.

        Example:

        ```python
        keras_wm.attach(model, "block4_conv1", key)
        keras_wm.attach(model, "block4_conv2", key, slot=1)
        keras_wm.verify("model.keras", key, slots=2)
        ```
        """
        other = self._with(slot=slot)
        return self if other == self else other

    def with_anchor(self, anchor: Anchor | None) -> WatermarkKey:
        """Returns this key with an anchor in its slot.

        A kernel that is marked or tested in this slot is then read through the anchor.
        The arrays of the slot are others with each anchor: without the same anchor, the
        mark is not found.

        Args:
            anchor: The `keras_wm.Anchor`, or `None` for none.

        Returns:
            A `WatermarkKey` with the same commitment, in the same slot. It has anchors
            of its own, which are written when it is saved.

        Raises:
            ValueError: If this key was given as arrays.
        """
        if anchor is not None:
            self._check_can_have_anchors()
        return self._with(anchors=self.anchors.replaced(self.slot, anchor))

    def add_anchor(self, anchor: Anchor) -> None:
        """Keeps an anchor in this key's slot, from now on.

        All copies of this key have it too. If the key was loaded from a file or saved,
        it is written to the file beside it at once: the mark is not found without it.

        Args:
            anchor: The `keras_wm.Anchor`.

        Raises:
            ValueError: If the slot has another anchor, or this key was given as arrays.
            OSError: If the file cannot be written.
        """
        self._check_can_have_anchors()
        self.anchors.add(self.slot, anchor)

    def _check_can_have_anchors(self) -> None:
        if isinstance(self._source, ArraySource):
            raise ValueError(
                "A key that was given as arrays cannot have an anchor: its arrays "
                "would not depend on it."
            )

    @property
    def anchor(self) -> Anchor | None:
        """The anchor in the key's slot, or `None`; see `with_anchor`."""
        return self.anchors.get(self.slot)

    @property
    def anchor_digest(self) -> str:
        """The digest of the anchor in the key's slot, or an empty string."""
        return self.anchor.digest if self.anchor else ""

    def slot_commitment(self, slot: int) -> str:
        """Returns the commitment to one slot, which a claim contains.

        The owner can later show the seed of this slot alone, and keep the others.

        Args:
            slot: Number of the slot, from 0.

        Returns:
            SHA-256 of the slot's seed and of the anchor's digest, if it has an anchor,
            in hexadecimal.

        Raises:
            ValueError: If the number is negative, or this key was given as arrays.
        """
        key = self.in_slot(slot)
        return self._source.slot_commitment(key.slot, key.anchor_digest)

    def open_slot(
        self, slot: int, membership: Mapping[str, Any] | None = None
    ) -> WatermarkKey:
        """Returns a key that shows one slot only, to be given to a verifier.

        It has the message, projection and filter weights of this slot, and can be saved
        and used like any key. The secret, the other slots and recipients' keys cannot
        be computed from it. Anybody who has it can remove the mark in this slot.

        It proves nothing by itself (`certified` is `False`): that the slot belongs to
        the key is shown by a `keras_wm.Claim`, which commits to each slot.

        Args:
            slot: Number of the slot to show, from 0.
            membership: For a recipient's key, the proof that the recipient is in the
                list of a claim, from `keras_wm.claims.Membership`. Defaults to `None`.

        Returns:
            A `WatermarkKey` with the same commitment, in this slot.

        Raises:
            ValueError: If the number is negative, or this key is not certified.

        Example:

        ```python
        key.open_slot(1).save("slot-1.key")
        ```
        """
        source = self.in_slot(slot)._source
        if not isinstance(source, (SecretSource, RecipientSource)) or not (
            source.certified
        ):
            raise ValueError(
                "Expected a whole key that is derived as docs/key.md specifies. "
                f"Received: {self!r}"
            )
        fields = {**source.payload(), "secret": source.slot_seed(slot)}
        opened = WatermarkKey.from_payload(
            {
                **fields,
                "commitment": self.commitment,
                "slot": slot,
                "membership": membership,
            }
        )
        return opened.with_anchor(self.in_slot(slot).anchor)

    @property
    def opened(self) -> bool:
        """True if this key shows a single slot of a whole key; see `open_slot`."""
        return isinstance(self._source, SlotSource)

    @property
    def caveat(self) -> str:
        """The reason why its mark is not evidence by itself; empty if it is."""
        if self.certified:
            return ""
        if self.opened:
            return (
                "This key shows one slot of a key. It proves nothing by itself, "
                "because seeds can be tried until one fits. Check that it belongs to a "
                "claim that is older than the model: keras-wm claim check CLAIM "
                "--opening KEY."
            )
        if isinstance(self._source, ArraySource):
            return (
                "This key was given as arrays. It proves nothing by itself unless it "
                "is known to be older than the model: a projection can be solved for."
            )
        return "This key has another number of filter weights than docs/key.md fixes."

    @property
    def membership(self) -> Mapping[str, Any] | None:
        """The proof of membership that an opened recipient's key has, or `None`."""
        return self._source.membership if isinstance(self._source, SlotSource) else None

    def save(
        self,
        path: str | os.PathLike[str],
        passphrase: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Writes the key to a file that only its owner can read (mode 0600).

        The anchors of its slots, also those that are added later, are written to a
        second file beside it, with `.anchors` after its name. Keep both.

        Args:
            path: Path of the new file.
            passphrase: Passphrase to encrypt the file with (scrypt and AES-256-GCM).
                Needs the extra `encrypt`.
            overwrite: Whether to replace an existing file. A lost key cannot be
                recovered, so this defaults to `False`.

        Raises:
            FileExistsError: If the file exists and `overwrite` is `False`.
            ImportError: If a passphrase is given and `cryptography` is not installed.
        """
        # If the anchors beside the file are those of another key, nothing is written.
        self.anchors.read_beside(path)
        write_key(path, self.payload(), passphrase, overwrite)
        self.anchors.keep_beside(path)

    def for_shape(self, shape: Sequence[int]) -> KernelKey:
        """Returns message, projection and filter weights for kernels of one shape.

        Args:
            shape: Shape of the kernels, filters last.

        Returns:
            A `KernelKey`.

        Raises:
            ValueError: If the kernel has fewer than 2 axes, is empty, or cannot hold
                the message, or if the key's anchor is for kernels of another size.
        """
        size, count = flat_shape(shape)
        # A sparse projection has no rows beyond its limit; a random one always has.
        if self._limited or self.projection != "random":
            check_bits(self.bits, self.projection, size, count, self.groups)
        self._arrays.check_size(size)
        if self.anchor:
            self.anchor.check_size(size)
        place = Place(self.slot, size, count, self.anchor_digest)
        return KernelKey(self._arrays, self._identity, place, self.anchor)

    def fits(self, shape: Sequence[int]) -> bool:
        """Returns whether kernels of a shape, filters last, can hold the message."""
        try:
            self.for_shape(shape)
        except ValueError:
            return False
        return True

    def payload(self) -> Payload:
        """Returns the fields of a key file. The secret is still a `Secret`."""
        return self._source.payload()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WatermarkKey):
            return NotImplemented
        same = (self._identity, self.slot) == (other._identity, other.slot)
        return same and self.anchors == other.anchors

    def __hash__(self) -> int:
        return hash((self._identity, self.slot))

    def __repr__(self) -> str:
        recipient = f" for {self.recipient!r}" if self.recipient else ""
        slot = f" in slot {self.slot}" if self.slot else ""
        if self.opened:
            slot = f", opened in slot {self.slot} only"
        return (
            f"<WatermarkKey {self.commitment[:8]} of {self.owner!r}{recipient}{slot}: "
            f"{self.bits} bits, projection={self.projection!r}, "
            f"filters={self.filters!r}>"
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def _with(self, **changes: Any) -> WatermarkKey:
        """Returns a key that differs in some arguments of the constructor."""
        arguments = {
            "source": self._source,
            "limited": self._limited,
            "slot": self.slot,
            "anchors": self.anchors,
        }
        return WatermarkKey(**(arguments | changes))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "WatermarkKey cannot be pickled, because a pickle would contain the "
            "secret. Use key.save(path) instead."
        )


def check_key(key: object) -> None:
    """Raises TypeError unless `key` is a `WatermarkKey`."""
    if not isinstance(key, WatermarkKey):
        raise TypeError(
            "Expected a WatermarkKey, from WatermarkKey.generate or WatermarkKey.load. "
            f"Received: key of type {type(key).__name__}"
        )
