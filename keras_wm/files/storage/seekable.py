"""What all files of ours that can be sought in have in common."""

from __future__ import annotations

import io
import os


class Seekable(io.RawIOBase):
    """A readable file of known size, with a position.

    Args:
        size: Its size in bytes.
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

    def tell(self) -> int:
        return self._position
