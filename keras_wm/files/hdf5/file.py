"""An HDF5 file that may be hostile, opened so that HDF5 itself stays within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import h5py

from keras_wm.errors import UnsafeFileError
from keras_wm.files.hdf5.global_heap import MAGIC, vet_global_heap
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.streams import Window

_CACHE_BYTES = 1024**2
_SIZES = (8, 8)


class BoundedFile(h5py.File):
    """An HDF5 file of which a limited number of bytes is read while it is listed.

    One attribute, one list of names or one header may be as large as the file, and
    HDF5 reads it as a whole, or the same one again for every object.

    Args:
        source: The open file.
    """

    def __init__(self, source: Source) -> None:
        self._window = _Listing(source)
        self._listing_bytes = source.limits.listing_bytes
        super().__init__(cast(BinaryIO, self._window), "r")
        if self.id.get_create_plist().get_sizes() != _SIZES:
            raise UnsafeFileError(
                "its addresses or lengths do not have 8 bytes. "
                "Keras writes no such file: do not use this one."
            )
        self._shrink_cache()

    def listed(self) -> None:
        """Ends the listing: from now on, any number of bytes may be read."""
        self._window.budget = None

    @contextmanager
    def listing(self) -> Iterator[None]:
        """Takes up the listing again, for something beside the arrays."""
        self._window.budget = self._listing_bytes
        try:
            yield
        finally:
            self.listed()

    def _shrink_cache(self) -> None:
        # HDF5 keeps what it has read until it has 32 MB of it, which take several
        # times as much in memory. Almost nothing is asked for twice.
        cache = self.id.get_mdc_config()
        cache.set_initial_size = True
        cache.initial_size = cache.min_size = cache.max_size = _CACHE_BYTES
        self.id.set_mdc_config(cache)


class _Listing(Window):
    """The file as HDF5 reads it, which looks at what is read until it is listed."""

    def __init__(self, source: Source) -> None:
        budget = source.limits.listing_bytes
        beyond = (
            f"to list it, more than Limits.listing_bytes={budget:,} bytes are read."
        )
        super().__init__(source.file, 0, source.size, budget, beyond)
        self._source = source

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start = self.tell()
        count = super().readinto(buffer)
        # The bytes of an array may look like anything, but none is read before.
        if self.budget is not None and bytes(buffer[: len(MAGIC)]) == MAGIC:
            vet_global_heap(self._source.file, start)
        return count
