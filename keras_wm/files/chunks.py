"""Arrays that are stored in chunks, unpacked here and not by HDF5.

HDF5's own inflating grows its buffer for as long as a chunk has more to give,
whatever the size of the array: one megabyte in the file can ask for a gigabyte.
"""

from __future__ import annotations

import itertools
import math
import zlib

import h5py
import numpy as np
from numpy.typing import NDArray

from keras_wm.errors import UnsafeFileError
from keras_wm.files.limits import Limits

_CHECKSUM_BYTES = 4


def read_chunks(
    dataset: h5py.Dataset, dtype: np.dtype[np.generic], limits: Limits
) -> NDArray[np.generic]:
    """Reads a chunked dataset whose filters have been vetted.

    Args:
        dataset: The dataset.
        dtype: Its type.
        limits: What the file may ask of this machine.

    Returns:
        The array.

    Raises:
        UnsafeFileError: If a chunk is missing, or is not of a chunk's size.
    """
    plan = dataset.id.get_create_plist()
    shape, chunk = dataset.shape, plan.get_chunk()
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    corners = [range(0, axis, step) for axis, step in zip(shape, chunk, strict=True)]
    count, size = math.prod(map(len, corners)), math.prod(chunk) * dtype.itemsize
    if count > limits.chunks or size > limits.array_bytes:
        raise UnsafeFileError(
            f"has {count:,} chunks of {size:,} bytes, more than "
            f"Limits.chunks={limits.chunks:,} or "
            f"Limits.array_bytes={limits.array_bytes:,}."
        )
    array = np.empty(shape, dtype)
    for corner in itertools.product(*corners):
        stored, skipped = _stored_chunk(dataset, corner, size)
        unpacked = _unpacked(stored, skipped, filters, dtype.itemsize, size)
        block = np.frombuffer(unpacked, dtype).reshape(chunk)
        # The last chunk of an axis is stored whole, beyond the end of the array.
        within = array[
            tuple(slice(at, at + step) for at, step in zip(corner, chunk, strict=True))
        ]
        within[...] = block[tuple(map(slice, within.shape))]
    return array


def _stored_chunk(
    dataset: h5py.Dataset, corner: tuple[int, ...], size: int
) -> tuple[bytes, int]:
    info = dataset.id.get_chunk_info_by_coord(corner)
    if info.byte_offset is None or info.size > _room(size):
        raise UnsafeFileError(f"has no chunk at {corner}, or too large a one.")
    skipped, stored = dataset.id.read_direct_chunk(corner)
    return stored, skipped


def _unpacked(
    data: bytes, skipped: int, filters: list[int], itemsize: int, size: int
) -> bytes:
    for index, applied in reversed(list(enumerate(filters))):
        if skipped >> index & 1:
            continue
        if applied == h5py.h5z.FILTER_DEFLATE:
            data = zlib.decompressobj().decompress(data, _room(size))
        elif applied == h5py.h5z.FILTER_SHUFFLE:
            data = np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()
        else:
            data = data[:-_CHECKSUM_BYTES]
    if len(data) != size:
        raise UnsafeFileError(
            f"has a chunk of {size:,} bytes that unpacks to at least {len(data):,}."
        )
    return data


def _room(size: int) -> int:
    """What a chunk may take before all its filters are undone."""
    return 2 * size + 4096
