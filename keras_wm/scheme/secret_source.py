r"""Source of a key: a secret, and the arrays that are derived from it.

A kernel \(W\) of shape \((M, L)\), filters last, is read bit by bit as
\(y_j = x_j \cdot u_j\) with \(u_j = W a_j\). The papers (Uchida et al. 2017,
section 3; Nagai et al. 2018, section 3) use the mean filter,
\(a_j = 1/L\). Keyed filters use signs that are derived from the secret instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_wm.scheme.key_file import Payload
from keras_wm.scheme.names import checked_bits, checked_name
from keras_wm.scheme.normal import quantile
from keras_wm.scheme.recipient_source import RecipientSource
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.streams import DerivedSource, KernelStreams, Place
from keras_wm.utils.arguments import check_choice, is_integer
from keras_wm.utils.arrays import Floats

Projection = Literal["random", "direct", "diff"]
Filters = Literal["keyed", "mean"]

# One vector per bit, up to 64. With fewer, such as 16 for 64 bits, the mark lies in so
# few directions of a small kernel that its largest singular values give it away.
KEYED_GROUPS = 64

# Number of doubles that are converted at once: they fit into a processor's cache.
_CHUNK_SIZE = 2**14


@dataclass(frozen=True)
class SecretSource(DerivedSource):
    """A secret and the public choices of a key. Everything is derived from them.

    The root of the key is computed from the secret and all choices by scrypt, and the
    arrays of each kernel from the root. A changed choice is therefore a changed key.

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
        groups: G, the number of vectors of filter weights that the bits share. `0` is
            the number of the specification. A key with another number serves research
            only, and is not certified.

    Raises:
        ValueError: If a choice is not valid.
    """

    secret: Secret
    owner: str
    bits: int
    projection: Projection
    filters: Filters
    groups: int = 0

    recipient: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "owner", checked_name("owner", self.owner))
        checked_bits(self.bits)
        if not is_integer(self.groups, 0):
            raise ValueError(
                f"Expected an integer of at least 0. Received: groups={self.groups!r}"
            )
        check_choice("projection", self.projection, get_args(Projection))
        check_choice("filters", self.filters, get_args(Filters))
        if not self.groups:
            object.__setattr__(self, "groups", usual_groups(self.filters, self.bits))

    @property
    def certified(self) -> bool:
        """Returns whether G is the number of the specification."""
        return self.groups == usual_groups(self.filters, self.bits)

    def for_recipient(self, recipient: str) -> RecipientSource:
        """Returns the source of a recipient's key."""
        recipient = checked_name("recipient", recipient)
        # Derived from the root, so that a thousand recipients cost one scrypt.
        root = self._root.derive("recipient", recipient)
        return RecipientSource(root, self.owner, self.bits, recipient)

    def commitment(self) -> str:
        """Returns 64 hexadecimal digits that determine the key."""
        return self.secret.commit(*self._choices)

    def rows(self, place: Place, first: int, last: int) -> Floats:
        """Returns rows `first` to `last - 1` of X."""
        if self.projection == "random":
            return self._random_rows(place, range(first, last))
        matrix = np.zeros((last - first, place.size))
        columns = self._shuffled(place.size, self.projection, place)
        rows = np.arange(last - first)
        values = [1.0] if self.projection == "direct" else [1.0, -1.0]
        for number, value in enumerate(values):
            matrix[rows, columns[number :: len(values)][first:last]] = value
        return matrix

    def filter_weights(self, place: Place) -> Floats:
        """Returns a, shape `(G, L)`."""
        if self.filters == "mean":
            return mean_filter(place.filters)
        signs = np.full((self.groups, place.filters), -1.0)
        for group in range(self.groups):
            order = self._shuffled(place.filters, "filters", place, group)
            signs[group, order[: -(-place.filters // 2)]] = 1.0
        return signs

    def spread(self, size: int) -> float:
        """Returns the standard deviation of x_j . v for a random unit vector v."""
        mean_squared_norm = {"random": size, "direct": 1, "diff": 2}[self.projection]
        return sqrt(mean_squared_norm / size)

    def check_size(self, size: int) -> None:
        """Does nothing: X can be derived for every M."""

    def payload(self) -> Payload:
        """Returns the fields of a key file."""
        names = ["owner", "bits", "projection", "filters", "secret"]
        names += [] if self.certified else ["groups"]
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _root(self) -> Secret:
        return self.secret.root(*self._choices)

    @cached_property
    def _streams(self) -> KernelStreams:
        return KernelStreams(self._root)

    @property
    def _choices(self) -> tuple[int | str, ...]:
        choices = (self.owner, self.bits, self.projection, self.filters)
        return choices if self.certified else (*choices, self.groups)

    def _random_rows(self, place: Place, rows: range) -> Floats:
        """Returns normal deviates, converted in chunks that fit into the cache."""
        matrix = np.empty((len(rows), place.size))
        step = max(1, _CHUNK_SIZE // place.size)
        expand = self._streams.expand
        for start in range(0, len(rows), step):
            together = slice(start, start + step)
            stream = b"".join(
                expand(8 * place.size, "random", place, row) for row in rows[together]
            )
            words = np.frombuffer(stream, ">u8")
            normals = matrix[together].reshape(-1)
            for first in range(0, len(words), _CHUNK_SIZE):
                chunk = slice(first, first + _CHUNK_SIZE)
                normals[chunk] = _normals(words[chunk].astype(np.uint64))
        return matrix

    def _shuffled(
        self, size: int, label: str, place: Place, *parameters: int
    ) -> NDArray[np.intp]:
        """Returns 0 ... size - 1 in a secret order, that of a stream's 64-bit words."""
        stream = self._streams.expand(8 * size, label, place, *parameters)
        return np.argsort(np.frombuffer(stream, ">u8"), kind="stable")


def _normals(words: NDArray[np.uint64]) -> Floats:
    """Returns normal deviates: the inverse CDF of 53-bit uniforms.

    The first bit of a word is the sign. The next 52 bits give a uniform in (0, 1/2)
    that a double represents exactly and that is never 0, so no entry is infinite.
    """
    uniform = (words >> 11 & (2**52 - 1)).astype(np.float64)
    normals = quantile((uniform + 0.5) / 2.0**53)
    np.negative(normals, out=normals, where=words < 2**63)
    return normals


def usual_groups(filters: str, bits: int) -> int:
    """Returns G, the number of weight vectors that the specification fixes."""
    return min(KEYED_GROUPS, bits) if filters == "keyed" else 1


def mean_filter(count: int) -> Floats:
    """Returns the weights of the mean filter, shape `(1, L)`."""
    return np.full((1, count), 1.0 / count)
