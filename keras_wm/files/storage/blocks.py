"""A file that is far away, as a file: few bytes and few requests."""

from __future__ import annotations

import os
from typing import BinaryIO

from cachetools import LRUCache

from keras_wm.errors import ModelFileError
from keras_wm.files.storage.seekable import Seekable

# What is looked at to list a file's arrays stands far apart, so that larger blocks
# would mostly carry what nobody looks at.
_BLOCK_BYTES = 8 * 1024
_SMALL_FILE_BYTES = 256 * 1024
_CACHED_BYTES = 16 * 1024**2


class Blocks(Seekable):
    """A file whose reading costs a request, read in blocks that are remembered.

    An array is read in one request of its own; a small file as a whole.

    Args:
        file: The file, which has no cache of its own. It is not closed with this one.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file.seek(0, os.SEEK_END))
        self._file = file
        small = self._size <= _SMALL_FILE_BYTES
        self._block_bytes = max(self._size, 1) if small else _BLOCK_BYTES
        self._blocks: LRUCache[int, bytes] = LRUCache(_CACHED_BYTES, getsizeof=len)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start = self._position
        stop = min(start + len(buffer), self._size)
        if stop <= start:
            return 0
        buffer[: stop - start] = self._bytes(start, stop)
        self._position = stop
        return stop - start

    def _bytes(self, start: int, stop: int) -> bytes:
        size = self._block_bytes
        if stop - start > 4 * size:
            return self._fetch(start, stop)
        first = start // size * size
        blocks = b"".join(self._block(at) for at in range(first, stop, size))
        return blocks[start - first : stop - first]

    def _block(self, start: int) -> bytes:
        if start not in self._blocks:
            stop = min(start + self._block_bytes, self._size)
            self._blocks[start] = self._fetch(start, stop)
        return self._blocks[start]

    def _fetch(self, start: int, stop: int) -> bytes:
        self._file.seek(start)
        try:
            data = self._file.read(stop - start)
        except ValueError as error:
            raise ModelFileError(
                "its server does not send parts of files (HTTP range requests). "
                "Download the file first."
            ) from error
        if len(data) != stop - start:
            raise ModelFileError("its server sends fewer bytes than it was asked for.")
        return data
