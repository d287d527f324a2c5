"""Safetensors files, of any framework.

The header is checked as the specification of the format demands. The order of axes is
ambiguous: PyTorch puts the filters first, (L, D, S, S), and Keras puts them last,
(S, S, D, L). The file does not say which framework wrote it. Each array is therefore
listed in every order in which it could be a kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files.contents import Contents, Kernel, ReadConfig, Stored
from keras_wm.files.kernels.layer_weights import weights_of_layer
from keras_wm.files.limits import Limits, vet_limit
from keras_wm.files.storage.raw_array import raw_array
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.untrusted_json import parse_json
from keras_wm.utils.text import printable

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_KEYS = {"dtype", "shape", "data_offsets"}
# Counts and sizes are below this number, as they fit into 64 bits with a sign.
_MOST = 2**63
# Number formats by the bits of one number.
_FORMATS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "C64 F64 I64 U64",
}
_BITS = {code: bits for bits, codes in _FORMATS.items() for code in codes.split()}
# PyTorch and Keras separate the parts of a name by dots and slashes.
_SEPARATORS = "./"
_TRANSPOSED = "axes as PyTorch orders them, put into Keras's order"
_DEPTHWISE = f"{_TRANSPOSED} for a depthwise convolution"
# A kernel of a three-dimensional convolution has five axes.
_MOST_KERNEL_AXES = 5


def recognise(source: Source, stack: ExitStack, config: ReadConfig) -> Contents | None:
    """Returns the contents of a safetensors file; see `hdf5_weights.recognise`."""
    if not has_header(source):
        return None
    arrays = read_header(source)
    weights = weights_of_safetensors(arrays, source.limits)
    return Contents("safetensors", weights, arrays=lambda: arrays)


def weights_of_safetensors(arrays: Sequence[Stored], limits: Limits) -> list[Kernel]:
    """Lists the weights among the arrays of a file, each in every possible axis order.

    Args:
        arrays: The arrays.
        limits: Limits on the resources that the file can use.

    Returns:
        The weights.
    """
    layers: dict[str, dict[str, Stored]] = {}
    for array in arrays:
        # `"encoder.c1.weight"` is the variable `"weight"` of the layer `"encoder.c1"`.
        variable = array.path[max(map(array.path.rfind, _SEPARATORS)) + 1 :]
        layer = array.path.removesuffix(variable)
        layers.setdefault(layer, {})[variable] = array
    return [
        candidate
        for layer, stored in layers.items()
        for weight in weights_of_layer(layer[:-1], stored, limits=limits)
        for candidate in _axis_orders(weight)
    ]


def _axis_orders(kernel: Kernel) -> list[Kernel]:
    """Returns a weight in each axis order in which it can be a kernel of Keras.

    These are the stored order and, in case PyTorch stored it, (L, D) as (D, L),
    (L, D, S) as (S, D, L) and so on. (D, 1, S, S) can also be the (S, S, D, 1) of a
    depthwise convolution.
    """
    rank = len(kernel.shape)
    if not 2 <= rank <= _MOST_KERNEL_AXES:
        return [kernel]
    window = range(2, rank)
    kernels = [kernel, _transpose(kernel, (*window, 1, 0), _TRANSPOSED)]
    if rank in (3, 4) and kernel.shape[1] == 1:
        kernels.append(_transpose(kernel, (*window, 0, 1), _DEPTHWISE))
    return kernels


def _transpose(kernel: Kernel, axes: Sequence[int], note: str) -> Kernel:
    def read() -> NDArray[np.floating]:
        return kernel.read().transpose(axes)

    shape = tuple(kernel.shape[axis] for axis in axes)
    note = f"{kernel.note}, {note}" if kernel.note else note
    return replace(kernel, shape=shape, read=read, note=note)


def has_header(source: Source) -> bool:
    """Returns whether a file starts like a safetensors file."""
    # The upper four bytes of the length are zero, as no header has 4 GiB.
    starts_object = source.head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{"
    return starts_object and source.head[4:_LENGTH_BYTES] == bytes(4)


def read_header(source: Source) -> list[Stored]:
    """Reads the header of a safetensors file.

    Args:
        source: The open file.

    Returns:
        The arrays in the order of their bytes, which cover the rest of the file
        without gaps or overlaps.

    Raises:
        ModelFileError: If the header is damaged.
        UnsafeFileError: If it violates a rule of the format, or is too large.
        UnsupportedFileError: If an array has an unknown type.
    """
    limits = source.limits
    length = int.from_bytes(source.file.read(_LENGTH_BYTES), "little")
    problem = f"its header has {length:,} bytes, more"
    vet_limit(limits, "header_bytes", length, problem)
    data_start = _LENGTH_BYTES + length
    if data_start > source.size:
        raise ModelFileError(
            f"its header should have {length:,} bytes, but the file is shorter. "
            "It may be truncated: download it again."
        )
    header = parse_json(source.file.read(length), limits)
    _vet_metadata(header.pop(_METADATA, {}))
    vet_limit(limits, "arrays", len(header), f"it has {len(header):,} arrays, more")
    entries = [
        _read_entry(source, name, fields, data_start) for name, fields in header.items()
    ]
    entries.sort(key=lambda entry: entry[:2])
    _vet_cover(entries, data_start, source.size)
    return [array for _, _, array in entries]


def _read_entry(
    source: Source, name: str, fields: Any, data_start: int
) -> tuple[int, int, Stored]:
    """Returns the offset and the number of bytes of an array, and the array."""
    if not isinstance(fields, dict) or fields.keys() != _KEYS:
        raise _invalid(name, "has other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise UnsupportedFileError(
            f"array '{printable(name)}' has the unknown type "
            f"'{printable(str(dtype))}'. It may need a newer version of keras_wm."
        )
    if not _are_counts(shape):
        raise _invalid(name, "has an invalid shape")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _invalid(name, "has invalid data_offsets")
    size = offsets[1] - offsets[0]
    if _count_bits(shape, _BITS[dtype]) != 8 * size:
        raise _invalid(name, f"has {size:,} bytes, which do not fit its shape and type")
    start = data_start + offsets[0]
    array = raw_array(source, name, dtype, tuple(shape), start, size)
    return start, size, array


def _count_bits(shape: Iterable[int], bits: int) -> int:
    """Returns the number of bits of an array, but at most `_MOST`."""
    # The product of a long shape with large axes would be a huge number, which takes
    # long to compute.
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
    is_texts = isinstance(metadata, dict) and all(
        isinstance(text, str) for text in metadata.values()
    )
    if not is_texts:
        raise UnsafeFileError(
            f"its {_METADATA} should contain only texts, and does not: "
            "do not use this file."
        )


def _vet_cover(
    entries: Iterable[tuple[int, int, Stored]], position: int, end: int
) -> None:
    """Raises an error if arrays overlap, or if bytes belong to no array."""
    for start, size, array in entries:
        if start != position:
            problem = "overlaps" if start < position else "leaves a gap after"
            raise _invalid(array.path, f"{problem} the array before it")
        position += size
    if position > end:
        raise ModelFileError(
            f"its arrays should end at byte {position:,}, but the file ends at "
            f"{end:,}. It may be truncated: download it again."
        )
    if position < end:
        raise UnsafeFileError(
            f"{end - position:,} bytes at its end belong to no array. A valid "
            "safetensors file has no such bytes: do not use this file."
        )


def _invalid(name: str, problem: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"array '{printable(name)}' {problem}. A valid safetensors file has no such "
        "header: do not use this file."
    )
