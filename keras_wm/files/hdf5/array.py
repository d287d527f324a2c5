"""One array of numbers in an HDF5 file: whether it is one, and reading it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.hdf5.attributes import text_attribute
from keras_wm.files.hdf5.chunks import read_chunks
from keras_wm.files.limits import Limits
from keras_wm.files.storage.float_codes import FLOATS, decode
from keras_wm.utils.text import printable

_NUMBERS = {
    "<f2": h5py.h5t.IEEE_F16LE,
    ">f2": h5py.h5t.IEEE_F16BE,
    "<f4": h5py.h5t.IEEE_F32LE,
    ">f4": h5py.h5t.IEEE_F32BE,
    "<f8": h5py.h5t.IEEE_F64LE,
    ">f8": h5py.h5t.IEEE_F64BE,
    # What quantized kernels are made of.
    "|i1": h5py.h5t.STD_I8LE,
    "|u1": h5py.h5t.STD_U8LE,
}
# Types that HDF5 does not know, by their size and by what the attribute `dtype` says.
# Of those of one byte h5py can write only float8_e4m3fn, and Keras does not name it.
_OPAQUE = {
    (2, "bfloat16"): "BF16",
    (1, None): "F8_E4M3",
    (1, "float8_e4m3fn"): "F8_E4M3",
    (1, "float8_e5m2"): "F8_E5M2",
}
_MOST_AXES = 8


@dataclass(frozen=True)
class StoredArray:
    """An array of numbers that has been vetted, and not been read.

    Attributes:
        file: The file that it is in.
        place: Where the dataset that holds it is. An open dataset takes 12 KB.
        path: Where it stands in the file.
        shape: Its shape.
        stored: The type it is stored as.
        limits: What the file may ask of this machine.
        code: The type by safetensors's name, if HDF5 does not know it.
    """

    file: h5py.h5f.FileID
    place: h5py.h5r.Reference
    path: str
    shape: tuple[int, ...]
    stored: np.dtype[np.generic]
    limits: Limits
    code: str = ""

    @property
    def dataset(self) -> h5py.Dataset:
        """The dataset that holds it, opened."""
        return h5py.Dataset(h5py.h5r.dereference(self.place, self.file), readonly=True)

    @property
    def dtype(self) -> str:
        """The name of the stored type."""
        return FLOATS[self.code] if self.code else self.stored.name

    @property
    def is_float(self) -> bool:
        """Whether it is of floats, as it is."""
        return self.stored.kind not in "iu"

    def read(self) -> NDArray[Any]:
        """Reads the array, in the native byte order; halves become float32.

        Raises:
            ModelFileError: If the file has been closed, or is damaged.
            UnsafeFileError: If the array is too large.
        """
        if not self.file:
            raise ModelFileError("a kernel can be read only while its file is open.")
        size = math.prod(self.shape) * self.stored.itemsize
        if size > self.limits.array_bytes:
            raise UnsafeFileError(
                f"'{printable(self.path)}' has {size:,} bytes, more than "
                f"Limits.array_bytes={self.limits.array_bytes:,}. "
                "Raise the limit if you trust the file."
            )
        values = self._stored_values()
        if self.code:
            return decode(values.tobytes(), self.code).reshape(self.shape)
        if self.stored.kind in "iu":
            return values
        return values.astype(f"=f{max(4, self.stored.itemsize)}", copy=False)

    def _stored_values(self) -> NDArray[np.generic]:
        dataset = self.dataset
        if dataset.chunks is None:
            return np.asarray(dataset[()])
        try:
            return read_chunks(dataset, self.stored, self.limits)
        except UnsafeFileError as error:
            raise UnsafeFileError(f"'{printable(self.path)}' {error}") from error


class StoredArrays:
    """The arrays of one file, which together cannot be larger than the file.

    Args:
        file_bytes: Size of the HDF5 file.
        limits: What the file may ask of this machine.
    """

    def __init__(self, file_bytes: int, limits: Limits) -> None:
        self._file: h5py.h5f.FileID | None = None
        self._unclaimed = file_bytes
        self._limits = limits

    def find(self, dataset: h5py.Dataset, path: str) -> StoredArray | None:
        """A dataset as an array of numbers of one axis or more.

        Args:
            dataset: The dataset, its storage vetted.
            path: Where it stands in the file.

        Returns:
            The array, or `None` where the dataset is something else.

        Raises:
            UnsafeFileError: If its size does not fit what is stored of it.
        """
        found = _stored_type(dataset, self._limits)
        space = dataset.id.get_space()
        if found is None or space.get_simple_extent_type() != h5py.h5s.SIMPLE:
            return None
        shape = space.get_simple_extent_dims()
        if not 1 <= len(shape) <= _MOST_AXES or 0 in shape:
            return None
        stored, code = found
        self._vet_size(dataset, path, math.prod(shape) * stored.itemsize)
        self._file = self._file or h5py.h5i.get_file_id(dataset.id)
        place = h5py.h5r.create(dataset.id, b".", h5py.h5r.OBJECT)
        return StoredArray(self._file, place, path, shape, stored, self._limits, code)

    def _vet_size(self, dataset: h5py.Dataset, path: str, declared: int) -> None:
        stored = dataset.id.get_storage_size()
        fits = declared == stored or self._fits_in_chunks(dataset, declared, stored)
        self._unclaimed -= stored
        if not fits or self._unclaimed < 0:
            raise UnsafeFileError(
                f"'{printable(path)}' declares {declared:,} bytes, and {stored:,} are "
                "said to be stored, which is too few, or more than the file has. "
                "Keras writes no such file: do not use this one."
            )

    def _fits_in_chunks(
        self, dataset: h5py.Dataset, declared: int, stored: int
    ) -> bool:
        plan = dataset.id.get_create_plist()
        if plan.get_layout() != h5py.h5d.CHUNKED:
            return False
        inflation = self._limits.inflation if plan.get_nfilters() else 1
        return declared <= inflation * stored


def _stored_type(
    dataset: h5py.Dataset, limits: Limits
) -> tuple[np.dtype[np.generic], str] | None:
    # h5py's own `dtype` builds types of any complexity, and takes a float that is
    # not IEEE's for the next one that is.
    stored = dataset.id.get_type()
    if stored.get_class() in (h5py.h5t.FLOAT, h5py.h5t.INTEGER):
        for name, known in _NUMBERS.items():
            if stored.equal(known):
                return np.dtype(name), ""
    elif stored.get_class() == h5py.h5t.OPAQUE and stored.get_size() <= 2:
        size = stored.get_size()
        code = _OPAQUE.get((size, text_attribute(dataset, "dtype", limits)))
        return (np.dtype(f"V{size}"), code) if code else None
    return None
