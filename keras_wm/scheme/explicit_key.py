"""A key whose projection and message are given as arrays."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from math import sqrt
from typing import ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.errors import KeyFileError
from keras_wm.scheme.cache import read_only
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.key_file import Payload
from keras_wm.scheme.projection import mean_filter
from keras_wm.utils.arrays import Floats


class ExplicitKey(WatermarkKey):
    """A projection and a message that anybody may have chosen.

    It embeds and verifies as any key, on the mean filter and for kernels of one
    size, but every report says that it proves nothing by itself unless it is known
    to be older than the model. See `WatermarkKey.from_arrays`.

    Args:
        matrix: X, shape `(T, M)`.
        message: b, T values of 0 and 1.
    """

    certified: ClassVar[bool] = False

    def __init__(self, matrix: ArrayLike, message: ArrayLike) -> None:
        self._matrix: Floats = read_only(_checked_matrix(matrix))
        self._given = _checked_message(message, len(self._matrix))
        self.owner = "whoever chose its arrays"
        self.bits = len(self._matrix)
        self.projection = "explicit"
        self.filters = "mean"
        self.groups = 1
        self.recipient = ""
        self._prepare()

    @classmethod
    def from_reference(
        cls, matrix_path: str | os.PathLike[str], message_path: str | os.PathLike[str]
    ) -> ExplicitKey:
        return cls(_load_array(matrix_path).T, _load_array(message_path))

    @classmethod
    def from_payload(cls, payload: Payload) -> ExplicitKey:
        """The key that `save` wrote."""
        values = base64.b64decode(payload["matrix"], validate=True)
        matrix = np.frombuffer(values, "<f8").reshape(payload["shape"])
        return cls(matrix, [int(bit) for bit in payload["message"]])

    def for_recipient(self, recipient: str) -> NoReturn:
        """There is no secret that another could be derived from."""
        raise ValueError(
            "A key that was given as arrays has no secret to derive a recipient's key "
            "from. Make a key with WatermarkKey.generate."
        )

    def spread(self, m: int) -> Floats:
        norms: Floats = np.linalg.norm(self._matrix, axis=1)
        return norms / sqrt(m)

    def _commit(self) -> str:
        content = self._matrix.astype("<f8").tobytes() + self._given.tobytes()
        label = f"keras_wm explicit key 1 {self._matrix.shape} ".encode()
        return hashlib.sha256(label + content).hexdigest()

    def _derive_message(self) -> NDArray[np.uint8]:
        return self._given

    def _derive_rows(self, m: int, first: int, last: int) -> Floats:
        if m != self._matrix.shape[1]:
            raise ValueError(
                "An explicit key fits kernels of one size. Expected M="
                f"{self._matrix.shape[1]} weights a filter. Received: M={m}, with "
                f"T={self.bits} bits."
            )
        return self._matrix[first:last]

    def _derive_weights(self, count: int) -> Floats:
        return mean_filter(count)

    def check_shape(self, shape: Sequence[int]) -> tuple[int, int]:
        size, count = super().check_shape(shape)
        self.matrix(size)
        return size, count

    def payload(self) -> Payload:
        """What makes up the key, as it stands in a key file, its secret sealed."""
        return {
            "shape": list(self._matrix.shape),
            "matrix": base64.b64encode(self._matrix.astype("<f8").tobytes()).decode(),
            "message": "".join(map(str, self._given)),
        }


def _checked_matrix(matrix: ArrayLike) -> Floats:
    array = np.array(matrix, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            "Expected a projection matrix of shape (T, M). Received: shape="
            f"{array.shape}"
        )
    if not np.isfinite(array).all() or not array.any(axis=1).all():
        raise ValueError("A projection matrix is finite and has no row of zeros.")
    return array


def _checked_message(message: ArrayLike, bits: int) -> NDArray[np.uint8]:
    array = np.array(message).reshape(-1)
    if array.size != bits or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"Expected a message of {bits} bits, 0 or 1, one for each row of the "
            f"matrix. Received: {array.size} values."
        )
    return array.astype(np.uint8)


def _load_array(path: str | os.PathLike[str]) -> NDArray[np.generic]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise KeyFileError(f"Cannot read an array from {os.fspath(path)!r}.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise KeyFileError(f"{os.fspath(path)!r} does not hold one array of numbers.")
    return array
