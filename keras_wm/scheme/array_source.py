"""Source of an explicit key: a projection and a message that were given as arrays."""

from __future__ import annotations

import base64
import hashlib
import os
from math import sqrt
from typing import ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.errors import KeyFileError
from keras_wm.scheme.key_file import Payload
from keras_wm.scheme.secret_source import mean_filter
from keras_wm.scheme.streams import Place
from keras_wm.utils.arrays import Floats, read_only


class ArraySource:
    """A projection and a message that were given as arrays.

    Anybody can choose such arrays for a given model. A key with this source therefore
    embeds and verifies like any other, but proves nothing by itself unless it is known
    to be older than the model. It uses the mean filter and fits kernels of one M.

    Args:
        matrix: X, shape `(T, M)`.
        message: b, T values of 0 and 1.
    """

    certified: ClassVar[bool] = False
    owner: ClassVar[str] = "whoever chose its arrays"
    projection: ClassVar[str] = "explicit"
    filters: ClassVar[str] = "mean"
    groups: ClassVar[int] = 1
    recipient: ClassVar[str] = ""

    def __init__(self, matrix: ArrayLike, message: ArrayLike) -> None:
        array = np.array(matrix, dtype=np.float64)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(
                "Expected a projection matrix of shape (T, M). Received: shape="
                f"{array.shape}"
            )
        if not np.isfinite(array).all() or not array.any(axis=1).all():
            raise ValueError(
                "Expected a projection matrix of finite values without a row of zeros. "
                "Received one with NaN, infinite values or a row of zeros."
            )
        self._matrix: Floats = read_only(array)
        self.bits = len(array)
        values = np.array(message).reshape(-1)
        if values.size != self.bits or not np.isin(values, (0, 1)).all():
            raise ValueError(
                f"Expected a message of {self.bits} bits, 0 or 1, one for each row of "
                f"the matrix. Received: {values.size} values."
            )
        self._message = values.astype(np.uint8)

    @classmethod
    def from_payload(cls, payload: Payload) -> ArraySource:
        """Reads the fields of a key file."""
        values = base64.b64decode(payload["matrix"], validate=True)
        matrix = np.frombuffer(values, "<f8").reshape(payload["shape"])
        return cls(matrix, [int(bit) for bit in payload["message"]])

    def for_recipient(self, recipient: str) -> NoReturn:
        """Raises ValueError: another key can only be derived from a secret."""
        raise ValueError(
            "A key that was given as arrays has no secret to derive a recipient's key "
            "from. Make a key with WatermarkKey.generate."
        )

    def commitment(self) -> str:
        """Returns SHA-256 of the arrays, in hexadecimal."""
        content = self._matrix.astype("<f8").tobytes() + self._message.tobytes()
        label = f"keras_wm explicit key 1 {self._matrix.shape} ".encode()
        return hashlib.sha256(label + content).hexdigest()

    def slot_commitment(self, slot: int, anchor: str = "") -> NoReturn:
        """Raises ValueError: a slot's seed is derived from a secret."""
        raise ValueError(
            "A key that was given as arrays has no slots: nothing of it is derived."
        )

    def message(self, place: Place) -> NDArray[np.uint8]:
        """Returns b, shape `(T,)`."""
        return self._message

    def rows(self, place: Place, first: int, last: int) -> Floats:
        """Returns rows `first` to `last - 1` of X."""
        return self._matrix[first:last]

    def filter_weights(self, place: Place) -> Floats:
        """Returns the weights of the mean filter, shape `(1, L)`."""
        return mean_filter(place.filters)

    def spread(self, size: int) -> Floats:
        """Returns the standard deviation of x_j . v for a random unit vector v."""
        norms: Floats = np.linalg.norm(self._matrix, axis=1)
        return norms / sqrt(size)

    def check_size(self, size: int) -> None:
        """Raises ValueError unless X has `size` columns."""
        if size != self._matrix.shape[1]:
            raise ValueError(
                "An explicit key fits kernels of one size. Expected M="
                f"{self._matrix.shape[1]} weights per filter. Received: M={size}, with "
                f"T={self.bits} bits."
            )

    def payload(self) -> Payload:
        """Returns the fields of a key file."""
        return {
            "shape": list(self._matrix.shape),
            "matrix": base64.b64encode(self._matrix.astype("<f8").tobytes()).decode(),
            "message": "".join(map(str, self._message)),
        }


def load_array(path: str | os.PathLike[str]) -> NDArray[np.generic]:
    """Reads an array of numbers from a `.npy` file; raises KeyFileError if it fails."""
    try:
        # A pickle could run code.
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise KeyFileError(f"Cannot read an array from {os.fspath(path)!r}.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise KeyFileError(
            f"Expected an array of numbers in {os.fspath(path)!r}. Received other data."
        )
    return array
