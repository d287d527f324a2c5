"""Numbers of the types that safetensors knows, from their bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOATS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
}
# What quantized kernels are made of.
INTEGERS = {"I8": "int8", "U8": "uint8"}


def decode(data: bytes, code: str) -> NDArray[Any]:
    """Decodes numbers, exactly.

    Args:
        data: The bytes, little-endian.
        code: The type, a key of `FLOATS` or `INTEGERS`.

    Returns:
        The numbers in one axis, floats as float32 or float64.
    """
    if code in INTEGERS:
        return np.frombuffer(data, INTEGERS[code])
    if code == "F8_E4M3":
        return _from_e4m3(np.frombuffer(data, np.uint8))
    if code == "F8_E5M2":
        # Upper half of a float16, as bfloat16 is that of a float32.
        halves = np.frombuffer(data, np.uint8).astype(np.uint16) << 8
        return halves.view(np.float16).astype(np.float32)
    if code == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    floats = np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[code])
    return floats.astype(np.float64 if code == "F64" else np.float32)


def _from_e4m3(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    # With sign, exponent and mantissa where a float16 has them, a number comes out
    # 2 ** 8 times too small, because the exponent's bias is 15 there and 7 here. All
    # bits set but the sign is the only code that is no number.
    sign = (codes & np.uint8(0x80)).astype(np.uint16) << 8
    magnitude = (codes & np.uint8(0x7F)).astype(np.uint16)
    floats = (sign | magnitude << 7).view(np.float16).astype(np.float32) * 256
    floats[magnitude == 0x7F] = np.nan
    return floats
