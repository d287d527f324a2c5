"""Read-only seekable files: a part of a file, and a cached remote file."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from typing import BinaryIO

from cachetools import LRUCache

from keras_wm.errors import ModelFileError, UnsafeFileError

# The metadata that lists a file's arrays is scattered over the file. Larger blocks
# would mostly transfer bytes that are never used.
_BLOCK_BYTES = 8 * 1024
_SMALL_FILE_BYTES = 256 * 1024
_CACHED_BYTES = 16 * 1024**2
# A longer read, such as an array, is one request of its own and is not cached.
_MOST_CACHED_BLOCKS = 4


class SeekableStream(io.RawIOBase):
    """Base class of read-only seekable streams.

    Args:
        size: Size in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        position = origins[whence] + offset
        if position < 0:
            raise OSError(f"Cannot seek to {position}.")
        self._position = position
        return position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start, stop = self._position, min(self._position + len(buffer), self._size)
        if stop <= start:
            return 0
        data = self._bytes(start, stop)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    @abstractmethod
    def _bytes(self, start: int, stop: int) -> bytes:
        """Returns the bytes `[start, stop)`; fewer if the file is truncated."""


class Window(SeekableStream):
    """The bytes `[start, start + size)` of a seekable file, as a seekable file.

    `zipfile` can also seek in a stored member, but it reads all bytes before the
    new position.

    Args:
        file: Underlying file. It stays open when the window is closed.
        start: Offset of the window in the file.
        size: Number of bytes in the window.
        budget: Number of bytes that can be read through the window in total, or
            `None` for no limit. The attribute can be reset.
        over_budget: Error message for a read that exceeds the budget.
    """

    def __init__(
        self,
        file: BinaryIO,
        start: int,
        size: int,
        budget: int | None = None,
        over_budget: str = "",
    ) -> None:
        super().__init__(size)
        self._file = file
        self._start = start
        self.budget = budget
        self._over_budget = over_budget

    def _bytes(self, start: int, stop: int) -> bytes:
        if self.budget is not None:
            self.budget -= stop - start
            if self.budget < 0:
                raise UnsafeFileError(self._over_budget)
        self._file.seek(self._start + start)
        return self._file.read(stop - start)


class CachedRemoteFile(SeekableStream):
    """A remote file that is read with few requests and in cached blocks.

    An array is read in a single request, and so is a whole small file.

    Args:
        file: Remote file without a cache of its own. It stays open when this file
            is closed.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file.seek(0, os.SEEK_END))
        self._file = file
        small = self._size <= _SMALL_FILE_BYTES
        self._block_bytes = max(self._size, 1) if small else _BLOCK_BYTES
        self._blocks: LRUCache[int, bytes] = LRUCache(_CACHED_BYTES, getsizeof=len)

    def _bytes(self, start: int, stop: int) -> bytes:
        size = self._block_bytes
        if stop - start > _MOST_CACHED_BLOCKS * size:
            return self._fetch(start, stop)
        first = start // size * size
        blocks = b"".join(self._block(offset) for offset in range(first, stop, size))
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
        # fsspec's HTTP file raises this for a server without range requests.
        except ValueError as error:
            raise ModelFileError(
                "its server does not support reading parts of a file (HTTP range "
                "requests). Download the file first."
            ) from error
        if len(data) != stop - start:
            raise ModelFileError("its server sent fewer bytes than requested.")
        return data
