"""One array of numbers in an HDF5 file: vetting and reading it."""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.contents import MOST_AXES, Stored
from keras_wm.files.hdf5.file import (
    NOT_FROM_KERAS,
    BoundedFile,
    filters_of,
    read_text_attribute,
)
from keras_wm.files.limits import Limits, vet_limit
from keras_wm.files.storage.raw_array import FLOATS, decode, vet_array_size
from keras_wm.utils.text import printable

# The integers are the types of quantized kernels.
_NUMBERS = {
    name: h5py.h5t.py_create(np.dtype(name))
    for name in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1", "u1")
}
# Number formats that HDF5 does not know are stored as opaque bytes. They are identified
# by their size and by the attribute `dtype`. Of the 1-byte formats h5py can write only
# float8_e4m3fn, for which Keras writes no attribute.
_OPAQUE = {
    (2, "bfloat16"): "BF16",
    (1, None): "F8_E4M3",
    (1, "float8_e4m3fn"): "F8_E4M3",
    (1, "float8_e5m2"): "F8_E5M2",
}
_CHECKSUM_BYTES = 4


class StoredArrays:
    """Finds the arrays of one file, which cannot add up to more than the file's size.

    Args:
        file: The open file.
    """

    def __init__(self, file: BoundedFile) -> None:
        self._file = file
        self._unclaimed = file.source.size

    def find(self, dataset: h5py.Dataset, path: str) -> Stored | None:
        """Returns a dataset as an array of numbers with at least one axis.

        Args:
            dataset: Dataset whose storage has been vetted.
            path: Path of the dataset in the file.

        Returns:
            The array, or `None` if the dataset is something else.

        Raises:
            UnsafeFileError: If its declared size does not match its stored size.
        """
        number_type = _number_type(dataset, self._file.source.limits)
        space = dataset.id.get_space()
        if number_type is None or space.get_simple_extent_type() != h5py.h5s.SIMPLE:
            return None
        shape = space.get_simple_extent_dims()
        if not 1 <= len(shape) <= MOST_AXES or 0 in shape:
            return None
        stored, code = number_type
        size = math.prod(shape) * stored.itemsize
        self._vet_size(dataset, path, size)
        file = self._file
        # An open dataset takes 12 KB of memory, and a reference much less.
        reference = h5py.h5r.create(dataset.id, b".", h5py.h5r.OBJECT)

        def read() -> NDArray[Any]:
            if not file:
                raise ModelFileError(
                    "a kernel can be read only while its file is open."
                )
            vet_array_size(path, size, file.source.limits)
            opened = h5py.h5r.dereference(reference, file.id)
            dataset = h5py.Dataset(opened, readonly=True)
            values = _read_values(dataset, path, stored, file.source.limits)
            if code:
                return decode(values.tobytes(), code).reshape(shape)
            if stored.kind in "iu":
                return values
            # In native byte order; smaller floats become float32.
            return values.astype(f"=f{max(4, stored.itemsize)}", copy=False)

        return Stored(path, shape, FLOATS[code] if code else stored.name, read)

    def _vet_size(self, dataset: h5py.Dataset, path: str, declared: int) -> None:
        stored = dataset.id.get_storage_size()
        # Compression makes the stored size of chunks smaller.
        inflation = self._file.source.limits.inflation if filters_of(dataset.id) else 1
        is_chunked = dataset.chunks is not None
        fits = declared == stored or (is_chunked and declared <= inflation * stored)
        self._unclaimed -= stored
        if not fits or self._unclaimed < 0:
            raise UnsafeFileError(
                f"'{printable(path)}' declares {declared:,} bytes, and {stored:,} "
                "stored bytes. These are too few, or more than the file has. "
                f"{NOT_FROM_KERAS}"
            )


def _number_type(
    dataset: h5py.Dataset, limits: Limits
) -> tuple[np.dtype[np.generic], str] | None:
    """Returns the stored type, and the format's name if HDF5 does not know it."""
    # `dataset.dtype` builds types of any complexity, and maps a float that is not
    # IEEE's to the next one that is.
    stored = dataset.id.get_type()
    if stored.get_class() in (h5py.h5t.FLOAT, h5py.h5t.INTEGER):
        for name, known in _NUMBERS.items():
            if stored.equal(known):
                return np.dtype(name), ""
    elif stored.get_class() == h5py.h5t.OPAQUE and stored.get_size() <= 2:
        size = stored.get_size()
        code = _OPAQUE.get((size, read_text_attribute(dataset, "dtype", limits)))
        return (np.dtype(f"V{size}"), code) if code else None
    return None


def _read_values(
    dataset: h5py.Dataset, path: str, stored: np.dtype[np.generic], limits: Limits
) -> NDArray[np.generic]:
    if dataset.chunks is None:
        return np.asarray(dataset[()])
    try:
        return _read_chunks(dataset, stored, limits)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"'{printable(path)}' {error}") from error


def _read_chunks(
    dataset: h5py.Dataset, dtype: np.dtype[np.generic], limits: Limits
) -> NDArray[np.generic]:
    """Reads a chunked dataset whose filters have been vetted.

    Chunks are unpacked here, because HDF5 enlarges its buffer for as long as a chunk
    inflates, regardless of the size of the array: 1 MB in the file can use 1 GB.
    """
    shape, chunk, filters = dataset.shape, dataset.chunks, filters_of(dataset.id)
    count = math.prod(-(-axis // step) for axis, step in zip(shape, chunk, strict=True))
    size = math.prod(chunk) * dtype.itemsize
    unpacked = math.prod(shape) * dtype.itemsize if filters else 0
    vet_limit(limits, "chunks", count, f"has {count:,} chunks, more")
    vet_limit(limits, "chunk_bytes", size, f"has chunks of {size:,} bytes, more")
    problem = f"has {unpacked:,} bytes when it is unpacked, more"
    vet_limit(limits, "unpacked_bytes", unpacked, problem)
    stored_sizes = _stored_sizes(dataset, count)
    array = np.empty(shape, dtype)
    # The regions end with the array. The last chunk of an axis is stored whole.
    for region in dataset.iter_chunks():
        corner = tuple(axis.start for axis in region)
        if not 0 <= stored_sizes.get(corner, -1) <= _most_packed_bytes(size):
            raise UnsafeFileError(f"has no chunk at {corner}, or too large a one.")
        skipped, packed = dataset.id.read_direct_chunk(corner)
        data = _unpacked(packed, skipped, filters, dtype.itemsize, size)
        block = np.frombuffer(data, dtype).reshape(chunk)
        array[region] = block[tuple(map(slice, array[region].shape))]
    return array


def _stored_sizes(dataset: h5py.Dataset, most: int) -> dict[tuple[int, ...], int]:
    """Returns the number of stored bytes of each chunk, by its first index."""
    sizes: dict[tuple[int, ...], int] = {}

    def add(chunk: h5py.h5d.StoreInfo) -> bool | None:
        sizes[chunk.chunk_offset] = chunk.size
        return True if len(sizes) > most else None

    # If asked for a single chunk, HDF5 searches through all chunks every time.
    dataset.id.chunk_iter(add)
    return sizes


def _unpacked(
    data: bytes, skipped: int, filters: list[int], itemsize: int, size: int
) -> bytes:
    """Undoes the filters of one chunk; bit i of `skipped` marks filter i as unused."""
    for index, applied in reversed(list(enumerate(filters))):
        if skipped >> index & 1:
            continue
        if applied == h5py.h5z.FILTER_DEFLATE:
            data = zlib.decompressobj().decompress(data, _most_packed_bytes(size))
        elif applied == h5py.h5z.FILTER_SHUFFLE:
            data = np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()
        else:
            data = data[:-_CHECKSUM_BYTES]
    if len(data) != size:
        raise UnsafeFileError(
            f"has a chunk of {size:,} bytes that unpacks to at least {len(data):,}."
        )
    return data


def _most_packed_bytes(size: int) -> int:
    """Returns the largest accepted size of a chunk that is not completely unpacked."""
    # Deflate can make incompressible bytes slightly longer, and a checksum is added.
    return 2 * size + 4096
