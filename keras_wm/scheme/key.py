"""The owner's key: what is embedded, where, and how it is found again."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NoReturn, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.errors import KeyFileError
from keras_wm.scheme.cache import LARGEST, read_only, remembered
from keras_wm.scheme.capacity import USUAL_BITS, check_bits
from keras_wm.scheme.key_file import Payload, read_key, write_key
from keras_wm.scheme.projection import (
    Filters,
    Projection,
    filter_weights,
    message_bits,
    projection_rows,
    row_spread,
    usual_groups,
)
from keras_wm.scheme.secret import Secret
from keras_wm.utils.arrays import Floats


class WatermarkKey:
    """The secret of a watermark, and everything that follows from it.

    A key is 32 secret bytes and four public choices. The message, the projection
    for kernels of any size and the filter weights are derived from them by
    SHAKE-256 (see docs/key.md), so nobody can choose them after seeing a model.

    Make one with `generate`, or read one with `load`; `from_arrays` and
    `from_reference` take a projection and a message as they are, which works but
    proves nothing by itself.

    Example:

    ```python
    key = keras_wm.WatermarkKey.generate("Example Ltd")
    key.save("example.key")
    print(key.commitment)  # may be published, to prove the key's age
    ```

    Attributes:
        owner: Whom the mark names.
        bits: T, the length of the message.
        projection: `"random"`, `"direct"`, `"diff"` or `"explicit"`.
        filters: `"keyed"` or `"mean"`.
        groups: G, how many vectors of filter weights the bits share.
        recipient: Whose copy the mark names, where it does (see `for_recipient`).
        certified: Whether everything is derived from a secret, so that finding
            the mark is evidence by itself.
        normal: Whether the scores in an unmarked kernel are exactly N(0, 1).
    """

    certified: ClassVar[bool] = True

    def __init__(
        self,
        secret: Secret,
        owner: str,
        bits: int,
        projection: Projection,
        filters: Filters,
        groups: int,
        recipient: str = "",
    ) -> None:
        _check_choices(owner, bits, projection, filters, groups)
        if not isinstance(recipient, str):
            raise ValueError(f"Expected a text. Received: recipient={recipient!r}")
        self._secret = secret
        self.owner = unicodedata.normalize("NFC", owner)
        self.bits = bits
        self.projection: str = projection
        self.filters: str = filters
        self.groups = groups
        self.recipient = recipient
        self._prepare()

    @classmethod
    def generate(
        cls,
        owner: str,
        bits: int = USUAL_BITS,
        projection: Projection = "random",
        filters: Filters = "keyed",
    ) -> WatermarkKey:
        """A new key, its secret drawn from the operating system.

        Args:
            owner: Whom the mark shall name, such as a company or an e-mail
                address. The message depends on it.
            bits: T, the length of the message. A kernel has room for so much
                evidence, however many bits share it: the fewer, the more it takes
                to turn one. All of 64 right are a matter of 2**-64 by chance.
                Defaults to 64.
            projection: What each bit is read through: `"random"` (normal
                deviates), `"direct"` (one weight) or `"diff"` (a difference of
                two). Defaults to `"random"`.
            filters: `"keyed"` spreads the mark over all filters by secret
                signs, half of them +1, so that the mean filter is not read;
                `"mean"` puts it into the mean filter, as the papers do.
                Defaults to `"keyed"`.

        Returns:
            A `WatermarkKey`.
        """
        groups = usual_groups(filters, bits)
        return WatermarkKey(Secret.generate(), owner, bits, projection, filters, groups)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], passphrase: str | None = None
    ) -> WatermarkKey:
        """Reads a key file that `save` wrote.

        Args:
            path: The key file.
            passphrase: The passphrase it was saved with, if any.

        Returns:
            A `WatermarkKey`.

        Raises:
            KeyFileError: If the file is missing, damaged, tampered with, or of
                a newer version.
            WrongPassphraseError: If the passphrase is missing or wrong.
        """
        payload = read_key(path, passphrase)
        try:
            return WatermarkKey.from_payload(payload)
        except (KeyError, TypeError, ValueError) as error:
            raise KeyFileError(
                f"{os.fspath(path)!r} is not a valid key: {error}"
            ) from error

    @classmethod
    def from_payload(cls, payload: Payload) -> WatermarkKey:
        """The key that a payload describes, as it stands in a key file."""
        if "secret" in payload:
            return WatermarkKey(**payload)
        from keras_wm.scheme.explicit_key import ExplicitKey

        return ExplicitKey.from_payload(payload)

    @classmethod
    def from_arrays(cls, matrix: ArrayLike, message: ArrayLike) -> WatermarkKey:
        """A key from a projection and a message that are given, not derived.

        Such a key reads the mean filter, as the papers do. It proves nothing by
        itself: on weights that are fixed, anybody can solve for a projection
        that reads any message (Fan et al. 2019).

        Args:
            matrix: X, shape `(T, M)`.
            message: b, T values of 0 and 1.

        Raises:
            ValueError: If the shapes or values do not fit.
        """
        from keras_wm.scheme.explicit_key import ExplicitKey

        return ExplicitKey(matrix, message)

    @classmethod
    def from_reference(
        cls, matrix_path: str | os.PathLike[str], message_path: str | os.PathLike[str]
    ) -> WatermarkKey:
        """A key from the files of the papers' reference code.

        Args:
            matrix_path: The `*_w.npy` file, whose matrix is `(M, T)`.
            message_path: The `*_b.npy` file.
        """
        from keras_wm.scheme.explicit_key import ExplicitKey

        return ExplicitKey.from_reference(matrix_path, message_path)

    def for_recipient(self, recipient: str) -> WatermarkKey:
        """The key that marks one recipient's copy of the model.

        Its secret follows from this one's and cannot lead back to it, so that such a
        key may be handed to whoever prepares that copy. Message, projection and filter
        weights are its own: marks of several recipients do not disturb each other,
        nor the owner's, and in a copy that is the mean of several all of them are
        found. `keras_wm.identify` names the recipients whose marks are in a file.

        Args:
            recipient: Whom the copy is for, such as a customer's number.

        Returns:
            A `WatermarkKey` of the same size and kind.

        Raises:
            ValueError: If the name is empty, or this is a recipient's key already.

        Example:

        ```python
        copy_key = key.for_recipient("customer-17")
        keras_wm.attach(model, "block4_conv2", copy_key)
        ```
        """
        if not isinstance(recipient, str) or not recipient.strip():
            raise ValueError(
                "Expected the name of a recipient, a text. "
                f"Received: recipient={recipient!r}"
            )
        if self.recipient:
            raise ValueError(
                f"This is the key of the recipient {self.recipient!r} already. Derive "
                "recipients from the owner's own key."
            )
        recipient = unicodedata.normalize("NFC", recipient)
        return WatermarkKey(
            self._secret.derive("recipient", recipient),
            self.owner,
            self.bits,
            self.projection,  # type: ignore[arg-type]
            self.filters,  # type: ignore[arg-type]
            self.groups,
            recipient,
        )

    def save(
        self,
        path: str | os.PathLike[str],
        passphrase: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Writes the key to a file that only its owner may read (mode 0600).

        Args:
            path: Where to.
            passphrase: Encrypts the file (scrypt and AES-256-GCM). Needs the
                extra `encrypt`.
            overwrite: Whether a file that is there may be replaced. A key that
                is lost cannot be made again, so this defaults to `False`.

        Raises:
            FileExistsError: If the file exists and `overwrite` is `False`.
            ImportError: If a passphrase is given and `cryptography` is missing.
        """
        write_key(path, self.payload(), passphrase, overwrite)

    @property
    def commitment(self) -> str:
        """64 hexadecimal digits that fix the key without revealing it.

        Publish them (in a git commit, through a timestamping service) before
        the model, and the key can later be shown to be older than the dispute.
        """
        return self._commitment

    @property
    def message(self) -> NDArray[np.uint8]:
        """b, the bits that are embedded: 0 and 1, shape `(T,)`."""
        return self._message

    @property
    def normal(self) -> bool:
        """Whether the scores in an unmarked kernel are exactly N(0, 1)."""
        return self.projection == "random"

    @property
    def signs(self) -> Floats:
        """s = 2 b - 1, shape `(T,)`."""
        return self.message * np.float64(2) - 1

    def matrix(self, m: int) -> Floats:
        """X, the projection for kernels of `m` weights a filter, shape `(T, m)`.

        Raises:
            ValueError: If there are too many bits for any such kernel.
        """
        return remembered(
            (self.commitment, "matrix", m), lambda: self._derive_rows(m, 0, self.bits)
        )

    def row_blocks(self, m: int) -> Iterator[tuple[int, Floats]]:
        """X, in blocks of rows where it is too large to be kept.

        Yields:
            The number of the first row, which is a multiple of G, and the rows.
        """
        if 8 * m * self.bits <= LARGEST:
            yield 0, self.matrix(m)
            return
        step = self.groups * max(1, LARGEST // (8 * m * self.groups))
        for first in range(0, self.bits, step):
            last = min(first + step, self.bits)
            yield first, self._derive_rows(m, first, last)

    def filter_weights(self, count: int) -> Floats:
        """a, the weights of `count` filters, shape `(G, count)`.

        Bit j is read through row `j % G`.
        """
        return remembered(
            (self.commitment, "filters", count), lambda: self._derive_weights(count)
        )

    def spread(self, m: int) -> float | Floats:
        """What a row of X makes of a unit vector that knows nothing of it."""
        return row_spread(self.projection, m)  # type: ignore[arg-type]

    def check_shape(self, shape: Sequence[int]) -> tuple[int, int]:
        """M and L of a kernel.

        Args:
            shape: The kernel's shape, filters last.

        Returns:
            `(M, L)`: the weights of a filter and the number of filters.

        Raises:
            ValueError: If the rank is below 2, or the kernel cannot carry the
                message.
        """
        if len(shape) < 2 or 0 in shape:
            raise ValueError(
                "A mark needs a kernel of rank 2 or more, filters last, that is not "
                f"empty. Received: shape={tuple(shape)}. Put the regularizer on a "
                "kernel, not on a bias."
            )
        *filter_shape, count = (int(axis) for axis in shape)
        size = int(np.prod(filter_shape))
        self._check_bits(size, count)
        return size, count

    def _prepare(self) -> None:
        self._commitment = self._commit()
        self._message = read_only(self._derive_message())

    def _commit(self) -> str:
        choices = (self.owner, self.bits, self.projection, self.filters, self.groups)
        named = (self.recipient,) if self.recipient else ()
        return self._secret.commit(*choices, *named)

    def _derive_message(self) -> NDArray[np.uint8]:
        return message_bits(self._secret, self.owner, self.bits)

    def _derive_rows(self, m: int, first: int, last: int) -> Floats:
        # L is not known here; with filters enough for all groups the limit is widest.
        self._check_bits(m, 2 * self.groups)
        return projection_rows(
            self._secret,
            self.projection,  # type: ignore[arg-type]
            self.bits,
            m,
            first,
            last,
        )

    def _check_bits(self, size: int, count: int) -> None:
        check_bits(self.bits, self.projection, size, count, self.groups)

    def _derive_weights(self, count: int) -> Floats:
        return filter_weights(self._secret, self.filters, self.groups, count)  # type: ignore[arg-type]

    def payload(self) -> Payload:
        """What makes up the key, as it stands in a key file, its secret sealed."""
        payload = {
            "owner": self.owner,
            "bits": self.bits,
            "projection": self.projection,
            "filters": self.filters,
            "groups": self.groups,
            "secret": self._secret,
        }
        return payload | ({"recipient": self.recipient} if self.recipient else {})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WatermarkKey):
            return NotImplemented
        return self.commitment == other.commitment

    def __hash__(self) -> int:
        return hash(self.commitment)

    def __repr__(self) -> str:
        whose = f" for {self.recipient!r}" if self.recipient else ""
        return (
            f"<{type(self).__name__} {self.commitment[:8]} of {self.owner!r}{whose}: "
            f"{self.bits} bits, projection={self.projection!r}, "
            f"filters={self.filters!r}>"
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A key is not pickled, for a pickle would carry its secret. "
            "Save it with key.save(path)."
        )


def _check_choices(
    owner: str, bits: int, projection: str, filters: str, groups: int
) -> None:
    if not isinstance(owner, str) or not owner.strip():
        raise ValueError(
            f"A key names its owner. Expected a text. Received: owner={owner!r}"
        )
    for name, value in (("bits", bits), ("groups", groups)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"Expected a positive whole number. Received: {name}={value!r}"
            )
    for name, given, choices in (
        ("projection", projection, get_args(Projection)),
        ("filters", filters, get_args(Filters)),
    ):
        if given not in choices:
            raise ValueError(
                f"Expected one of {', '.join(map(repr, choices))}. "
                f"Received: {name}={given!r}"
            )
