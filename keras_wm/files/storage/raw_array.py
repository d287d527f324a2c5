"""An array of numbers whose bytes stand in a file one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.storage.float_codes import FLOATS, INTEGERS, decode
from keras_wm.files.storage.source import Source
from keras_wm.utils.text import printable

_MOST_AXES = 8


@dataclass(frozen=True)
class PlainArray:
    """Such an array, whose size has been vetted. It has not been read.

    Attributes:
        source: The file.
        path: Where it stands in the file, for error messages.
        code: Its type, by safetensors's name.
        shape: Its shape.
        start: Where its bytes start.
        size: How many bytes it has.
        order: The order of its axes in the file, by NumPy's name.
    """

    source: Source
    path: str
    code: str
    shape: tuple[int, ...]
    start: int
    size: int
    order: Literal["C", "F"] = "C"

    @property
    def dtype(self) -> str:
        """The name of its type."""
        return (FLOATS | INTEGERS).get(self.code, self.code)

    @property
    def is_float(self) -> bool:
        """Whether it is of floats, with one axis or more, and not too many."""
        axes = 1 <= len(self.shape) <= _MOST_AXES and 0 not in self.shape
        return axes and self.code in FLOATS

    def read(self) -> NDArray[Any]:
        """Reads the array, in single precision at least.

        Raises:
            ModelFileError: If the file has been closed, or has become shorter.
            UnsafeFileError: If the array is too large.
        """
        limits, file = self.source.limits, self.source.file
        size = max(self.size, 4 * math.prod(self.shape))
        if size > limits.array_bytes:
            raise UnsafeFileError(
                f"'{printable(self.path)}' has {size:,} bytes, more than "
                f"Limits.array_bytes={limits.array_bytes:,}. "
                "Raise the limit if you trust the file."
            )
        try:
            file.seek(self.start)
            data = file.read(self.size)
        except ValueError as error:  # Any file says so when it has been closed.
            raise ModelFileError(
                "a kernel can be read only while its file is open."
            ) from error
        if len(data) < self.size:
            raise ModelFileError("it became shorter while it was read.")
        return decode(data, self.code).reshape(self.shape, order=self.order)
