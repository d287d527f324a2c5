r"""Source of a recipient's key, whose mark withstands the comparison of copies.

A recipient with two marked copies knows their difference. A mark of low rank, such as
the owner's \(\sum_j x_j a_j^T\), can be found in the difference as its largest singular
vectors and removed from both. A recipient's mark is spread over all weights of a kernel
as independent, nearly normal numbers instead. The sum of several normal deviates is
independent of their differences. So the copies do not reveal what their marks have in
common: an array that is computed from the differences and added to the average of c
copies leaves the marks' mean score at 1 / c of the margin. To remove directions of the
kernel takes as much from the host as from the marks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import ClassVar, NoReturn

import numpy as np

from keras_wm.scheme.key_file import Payload
from keras_wm.scheme.names import checked_bits, checked_name
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.streams import DerivedSource, KernelStreams, Place
from keras_wm.utils.arrays import Floats

# The number of ones in each byte, minus its mean: a sum of eight signs, divided by 2.
# Its distribution is close enough to the normal one that differences of copies reveal
# nothing. For single signs, the weight of three copies that differs from the two others
# would reveal the sign of the sum.
_SUMS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1) - 4.0


@dataclass(frozen=True)
class RecipientSource(DerivedSource):
    """The root of a recipient's key, from which its arrays are derived.

    Bit j is read from the j-th block of the flattened kernel alone.

    Attributes:
        secret: The 32 bytes of the key's root, derived from the root of the owner's.
        owner: Name of the owner.
        bits: T, the length of the message.
        recipient: Name of the recipient whose copy is marked.

    Raises:
        ValueError: If a field is not valid.
    """

    secret: Secret
    owner: str
    bits: int
    recipient: str

    certified: ClassVar[bool] = True
    projection: ClassVar[str] = "sums"
    filters: ClassVar[str] = "blocks"

    def __post_init__(self) -> None:
        for field in ("owner", "recipient"):
            object.__setattr__(self, field, checked_name(field, getattr(self, field)))
        checked_bits(self.bits)

    @property
    def groups(self) -> int:
        """G: each bit has a block of its own."""
        return self.bits

    def for_recipient(self, recipient: str) -> NoReturn:
        """Raises ValueError: only the owner's key has recipients."""
        raise ValueError(
            f"This is already the key of the recipient {self.recipient!r}. Derive "
            "recipients' keys from the owner's own key."
        )

    def commitment(self) -> str:
        """Returns 64 hexadecimal digits that determine the key."""
        return self.secret.commit(self.owner, self.bits, "recipient", self.recipient)

    def rows(self, place: Place, first: int, last: int) -> Floats:
        """Returns rows `first` to `last - 1` of X, of one entry for each weight."""
        length = place.size * place.filters // self.bits
        matrix = np.empty((last - first, length))
        for row in range(first, last):
            stream = self._streams.expand(length, "sums", place, row)
            np.take(_SUMS, np.frombuffer(stream, np.uint8), out=matrix[row - first])
        return matrix

    def spread(self, size: int) -> float:
        """Returns the standard deviation of x_j . v for a unit vector v."""
        return sqrt(2)

    def check_size(self, size: int) -> None:
        """Does nothing: X can be derived for every M."""

    def payload(self) -> Payload:
        """Returns the fields of a key file."""
        names = ("owner", "bits", "secret", "recipient")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _streams(self) -> KernelStreams:
        return KernelStreams(self.secret)
