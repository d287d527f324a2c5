"""The header of a safetensors file, checked as its specification demands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files.storage.raw_array import RawArray
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.untrusted_json import parse_json
from keras_wm.utils.text import printable

LENGTH_BYTES = 8
_METADATA = "__metadata__"
_KEYS = {"dtype", "shape", "data_offsets"}
_MOST = 2**63
_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


def has_header(source: Source) -> bool:
    """Whether a file starts like a safetensors file."""
    # No header is so long that it needs the upper half of its length.
    starts_object = source.head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"
    return starts_object and source.head[4:LENGTH_BYTES] == bytes(4)


def read_header(source: Source) -> list[RawArray]:
    """The arrays of a safetensors file, in the order of their bytes.

    Args:
        source: The open file.

    Returns:
        The arrays. Together they cover the rest of the file, each byte once.

    Raises:
        ModelFileError: If the header is damaged.
        UnsafeFileError: If it breaks a rule of the format, or is too large.
        UnsupportedFileError: If an array has an unknown type.
    """
    limits = source.limits
    length = int.from_bytes(source.file.read(LENGTH_BYTES), "little")
    if length > limits.header_bytes:
        raise UnsafeFileError(
            f"its header has {length:,} bytes, more than "
            f"Limits.header_bytes={limits.header_bytes:,}."
        )
    data_start = LENGTH_BYTES + length
    if data_start > source.size:
        raise ModelFileError(
            f"its header should have {length:,} bytes; the file ends before. "
            "It may be truncated: fetch it again."
        )
    header = parse_json(source.file.read(length), limits)
    _vet_metadata(header.pop(_METADATA, {}))
    if len(header) > limits.arrays:
        raise UnsafeFileError(
            f"it has {len(header):,} arrays, more than Limits.arrays={limits.arrays:,}."
        )
    arrays = [
        _array(source, name, fields, data_start) for name, fields in header.items()
    ]
    arrays.sort(key=lambda array: (array.start, array.size))
    _vet_cover(arrays, data_start, source.size)
    return arrays


def _array(source: Source, name: str, fields: Any, data_start: int) -> RawArray:
    if not isinstance(fields, dict) or fields.keys() != _KEYS:
        raise _broken(name, "has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise UnsupportedFileError(
            f"array '{printable(name)}' has the type '{printable(str(dtype))}', which "
            "is none that is known. It may need a newer version of keras_wm."
        )
    if not _are_counts(shape):
        raise _broken(name, "has a shape that is none")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(name, "has data_offsets that are none")
    size = offsets[1] - offsets[0]
    if _bits(shape, _BITS[dtype]) != 8 * size:
        raise _broken(name, f"has {size:,} bytes, which do not fit its shape and type")
    start = data_start + offsets[0]
    return RawArray(source, name, dtype, tuple(shape), start, size)


def _bits(shape: Iterable[int], bits: int) -> int:
    """How many bits an array has; more than any file has, if they are too many."""
    # Multiplied at once, a long shape of large axes would be a very long number.
    if 0 in shape:
        return 0
    for axis in shape:
        bits *= axis
        if bits >= _MOST:
            return _MOST
    return bits


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < _MOST for value in values
    )


def _vet_metadata(metadata: Any) -> None:
    texts = isinstance(metadata, dict) and all(
        isinstance(text, str) for text in metadata.values()
    )
    if not texts:
        raise UnsafeFileError(
            f"its {_METADATA} should be texts and is not: do not use this file."
        )


def _vet_cover(arrays: Iterable[RawArray], start: int, end: int) -> None:
    """Refuses holes between arrays, arrays in one another, and bytes of none."""
    for array in arrays:
        if array.start != start:
            what = "overlaps with another" if array.start < start else "follows a hole"
            raise _broken(array.path, what)
        start += array.size
    if start > end:
        raise ModelFileError(
            f"its arrays should end at byte {start:,}; the file ends at {end:,}. "
            "It may be truncated: fetch it again."
        )
    if start < end:
        raise UnsafeFileError(
            f"{end - start:,} bytes at its end belong to no array. No safetensors "
            "file has any: do not use this one."
        )


def _broken(name: str, does: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"array '{printable(name)}' {does}. No safetensors file may have such a "
        "header: do not use this one."
    )
