r"""Source of a key: a secret, and the arrays that are derived from it.

A kernel \(W\) of shape \((M, L)\), filters last, is read bit by bit as
\(y_j = x_j \cdot u_j\) with \(u_j = W a_j\). The papers (Uchida et al. 2017,
section 3; Nagai et al. 2018, section 3) use the mean filter,
\(a_j = 1/L\). Keyed filters use signs that are derived from the secret instead.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from math import sqrt
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_wm.scheme.key_file import Payload
from keras_wm.scheme.normal import quantile
from keras_wm.scheme.secret import Secret
from keras_wm.utils.arguments import check_choice
from keras_wm.utils.arrays import Floats

Projection = Literal["random", "direct", "diff"]
Filters = Literal["keyed", "mean"]

# One vector per bit, up to 64. With fewer, such as 16 for 64 bits, the mark lies in so
# few directions of a small kernel that its largest singular values give it away.
KEYED_GROUPS = 64

# Number of doubles that are converted at once: they fit into a processor's cache.
_CHUNK_SIZE = 2**14


@dataclass(frozen=True)
class SecretSource:
    """A secret and the public choices of a key. Everything is derived from them.

    Attributes:
        secret: The 32 secret bytes.
        owner: Name of the owner.
        bits: T, the length of the message.
        projection: Type of X. `"random"`: i.i.d. standard normal entries. `"direct"`:
            one 1 in each row, in distinct columns. `"diff"`: one 1 and one -1 in each
            row, all in distinct columns.
        filters: Type of a. `"keyed"`: signs, as many +1 as -1 (one more +1 if L is
            odd). The mean filter, which carries the papers' marks, is therefore not
            read. `"mean"`: all weights are `1 / L`.
        groups: G, the number of vectors of filter weights that the bits share.
        recipient: Name of the recipient whose copy is marked; an empty string for the
            owner's own key.

    Raises:
        ValueError: If a choice is not valid.
    """

    certified: ClassVar[bool] = True

    secret: Secret
    owner: str
    bits: int
    projection: Projection
    filters: Filters
    groups: int
    recipient: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.owner, str) or not self.owner.strip():
            raise ValueError(
                "A key names its owner. Expected a non-empty string. "
                f"Received: owner={self.owner!r}"
            )
        if not isinstance(self.recipient, str):
            raise ValueError(
                f"Expected a string. Received: recipient={self.recipient!r}"
            )
        for name in ("bits", "groups"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"Expected a positive integer. Received: {name}={value!r}"
                )
        check_choice("projection", self.projection, get_args(Projection))
        check_choice("filters", self.filters, get_args(Filters))
        # The same name can be written with different code points.
        for field in ("owner", "recipient"):
            text = unicodedata.normalize("NFC", getattr(self, field))
            object.__setattr__(self, field, text)

    def for_recipient(self, recipient: str) -> SecretSource:
        """Returns the source of a recipient's key."""
        if not isinstance(recipient, str) or not recipient.strip():
            raise ValueError(
                "Expected the name of a recipient, a non-empty string. "
                f"Received: recipient={recipient!r}"
            )
        if self.recipient:
            raise ValueError(
                f"This is already the key of the recipient {self.recipient!r}. Derive "
                "recipients' keys from the owner's own key."
            )
        recipient = unicodedata.normalize("NFC", recipient)
        secret = self.secret.derive("recipient", recipient)
        return replace(self, secret=secret, recipient=recipient)

    def commitment(self) -> str:
        """Returns 64 hexadecimal digits that determine the key."""
        choices = (self.owner, self.bits, self.projection, self.filters, self.groups)
        recipient = (self.recipient,) if self.recipient else ()
        return self.secret.commit(*choices, *recipient)

    def message(self) -> NDArray[np.uint8]:
        """Returns b, shape `(T,)`: coin flips derived from the secret and the owner."""
        size = -(-self.bits // 8)
        stream = self.secret.expand(size, "message", self.owner, self.bits)
        return np.unpackbits(np.frombuffer(stream, np.uint8), count=self.bits)

    def rows(self, size: int, first: int, last: int) -> Floats:
        """Returns rows `first` to `last - 1` of X for M = `size`."""
        if self.projection == "random":
            return self._random_rows(size, range(first, last))
        matrix = np.zeros((last - first, size))
        columns = self._shuffled(self.projection, size)
        rows = np.arange(last - first)
        values = [1.0] if self.projection == "direct" else [1.0, -1.0]
        for number, value in enumerate(values):
            matrix[rows, columns[number :: len(values)][first:last]] = value
        return matrix

    def filter_weights(self, count: int) -> Floats:
        """Returns a for L = `count` filters, shape `(G, L)`."""
        if self.filters == "mean":
            return mean_filter(count)
        signs = np.full((self.groups, count), -1.0)
        for group in range(self.groups):
            order = self._shuffled("filters", count, group)
            signs[group, order[: -(-count // 2)]] = 1.0
        return signs

    def spread(self, size: int) -> float:
        """Returns the standard deviation of x_j . v for a random unit vector v."""
        mean_squared_norm = {"random": size, "direct": 1, "diff": 2}[self.projection]
        return sqrt(mean_squared_norm / size)

    def check_size(self, size: int) -> None:
        """Does nothing: X can be derived for every M."""

    def payload(self) -> Payload:
        """Returns the fields of a key file."""
        names = ["owner", "bits", "projection", "filters", "groups", "secret"]
        names += ["recipient"] if self.recipient else []
        return {name: getattr(self, name) for name in names}

    def _random_rows(self, size: int, rows: range) -> Floats:
        matrix = np.empty((len(rows), size))
        step = max(1, _CHUNK_SIZE // size)
        for start in range(0, len(rows), step):
            chunk = slice(start, start + step)
            matrix[chunk] = self._normals(size, rows[chunk])
        return matrix

    def _normals(self, size: int, rows: range) -> Floats:
        """Returns normal deviates: the inverse CDF of 53-bit uniforms.

        The first bit of a word is the sign. The next 52 bits give a uniform in (0, 1/2)
        that a double represents exactly and that is never 0, so no entry is infinite.
        """
        stream = b"".join(
            self.secret.expand(8 * size, "random", size, row) for row in rows
        )
        words = np.frombuffer(stream, ">u8").astype(np.uint64).reshape(len(rows), size)
        uniform = (words >> 11 & (2**52 - 1)).astype(np.float64)
        normals = quantile((uniform + 0.5) / 2.0**53)
        np.negative(normals, out=normals, where=words < 2**63)
        return normals

    def _shuffled(self, label: str, size: int, *parameters: int) -> NDArray[np.intp]:
        """Returns 0 ... size - 1 in a secret order, that of a stream's 64-bit words."""
        stream = self.secret.expand(8 * size, label, size, *parameters)
        return np.argsort(np.frombuffer(stream, ">u8"), kind="stable")


def usual_groups(filters: str, bits: int) -> int:
    """Returns G, the number of weight vectors of a new key."""
    return min(KEYED_GROUPS, bits) if filters == "keyed" else 1


def mean_filter(count: int) -> Floats:
    """Returns the weights of the mean filter, shape `(1, L)`."""
    return np.full((1, count), 1.0 / count)
