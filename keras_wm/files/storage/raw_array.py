"""Arrays that are stored as contiguous bytes, and decoding of their number formats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.errors import ModelFileError
from keras_wm.files.contents import Stored
from keras_wm.files.limits import Limits, vet_limit
from keras_wm.files.storage.source import Source
from keras_wm.utils.text import printable

# Number formats by the names of safetensors, with the names of NumPy and ml_dtypes.
FLOATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
}
# The formats of quantized kernels.
INTEGERS = {"I8": "int8", "U8": "uint8"}


def raw_array(
    source: Source, path: str, code: str, shape: tuple[int, ...], start: int, size: int
) -> Stored:
    """Returns a contiguous array of a file. Its size has been vetted.

    Args:
        source: File that contains the array.
        path: Name of the array in the file, for error messages.
        code: Number format, by its name in safetensors.
        shape: Shape.
        start: Offset of the first byte in the file.
        size: Number of bytes.
    """

    def read() -> NDArray[Any]:
        # The decoded array of floats has at least 4 bytes per number.
        vet_array_size(path, max(size, 4 * math.prod(shape)), source.limits)
        try:
            source.file.seek(start)
            data = source.file.read(size)
        except ValueError as error:  # Every closed file raises this.
            raise ModelFileError(
                "a kernel can be read only while its file is open."
            ) from error
        if len(data) < size:
            raise ModelFileError("it became shorter while it was read.")
        return decode(data, code).reshape(shape)

    return Stored(path, shape, (FLOATS | INTEGERS).get(code, code), read)


def vet_array_size(path: str, size: int, limits: Limits) -> None:
    """Raises UnsafeFileError if an array is larger than `Limits.array_bytes`."""
    problem = f"'{printable(path)}' has {size:,} bytes, more"
    vet_limit(limits, "array_bytes", size, problem)


def decode(data: bytes, code: str) -> NDArray[Any]:
    """Decodes numbers exactly.

    Args:
        data: Little-endian bytes.
        code: Number format, a key of `FLOATS` or `INTEGERS`.

    Returns:
        One-dimensional array: integers unchanged, floats as float32 or float64.
    """
    if code in INTEGERS:
        return np.frombuffer(data, INTEGERS[code])
    if code == "F8_E4M3":
        return _decode_e4m3(np.frombuffer(data, np.uint8))
    if code == "F8_E5M2":
        # The upper half of a float16, as bfloat16 is the upper half of a float32.
        halves = np.frombuffer(data, np.uint8).astype(np.uint16) << 8
        return halves.view(np.float16).astype(np.float32)
    if code == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    floats = np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[code])
    return floats.astype(np.float64 if code == "F64" else np.float32)


def _decode_e4m3(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    # With sign, exponent and mantissa moved to their places in a float16, the value
    # is 2 ** 8 times too small, because the exponent's bias is 15 there and 7 here.
    # The only code for NaN has all bits set except the sign.
    sign = (codes & np.uint8(0x80)).astype(np.uint16) << 8
    magnitude = (codes & np.uint8(0x7F)).astype(np.uint16)
    floats = (sign | magnitude << 7).view(np.float16).astype(np.float32) * 256
    floats[magnitude == 0x7F] = np.nan
    return floats
