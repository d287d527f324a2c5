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
        UnsafeFileError: If a chunk is missing, or is not of a chunk's size, or
            if there are too many or too large ones.
    """
    plan = dataset.id.get_create_plist()
    shape, chunk = dataset.shape, plan.get_chunk()
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    corners = [range(0, axis, step) for axis, step in zip(shape, chunk, strict=True)]
    count, size = math.prod(map(len, corners)), math.prod(chunk) * dtype.itemsize
    if count > limits.chunks or size > limits.chunk_bytes:
        raise UnsafeFileError(
            f"has {count:,} chunks of {size:,} bytes, more than "
            f"Limits.chunks={limits.chunks:,} or "
            f"Limits.chunk_bytes={limits.chunk_bytes:,}."
        )
    unpacked = math.prod(shape) * dtype.itemsize
    if filters and unpacked > limits.unpacked_bytes:
        raise UnsafeFileError(
            f"has {unpacked:,} bytes when it is unpacked, more than "
            f"Limits.unpacked_bytes={limits.unpacked_bytes:,}. "
            "Raise the limit if you trust the file."
        )
    sizes = _stored_sizes(dataset, count)
    array = np.empty(shape, dtype)
    for corner in itertools.product(*corners):
        if not 0 <= sizes.get(corner, -1) <= _room(size):
            raise UnsafeFileError(f"has no chunk at {corner}, or too large a one.")
        skipped, stored = dataset.id.read_direct_chunk(corner)
        data = _unpacked(stored, skipped, filters, dtype.itemsize, size)
        block = np.frombuffer(data, dtype).reshape(chunk)
        # The last chunk of an axis is stored whole, beyond the end of the array.
        within = array[
            tuple(slice(at, at + step) for at, step in zip(corner, chunk, strict=True))
        ]
        within[...] = block[tuple(map(slice, within.shape))]
    return array


def _stored_sizes(dataset: h5py.Dataset, most: int) -> dict[tuple[int, ...], int]:
    """The bytes that each chunk is stored in, by its corner."""
    sizes: dict[tuple[int, ...], int] = {}

    def add(chunk: h5py.h5d.StoreInfo) -> bool | None:
        sizes[chunk.chunk_offset] = chunk.size
        return True if len(sizes) > most else None

    # Asking for one chunk at a time, HDF5 looks through all of them every time.
    dataset.id.chunk_iter(add)
    return sizes


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
