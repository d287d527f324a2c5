"""A part of a file, as a file."""

from __future__ import annotations

from typing import BinaryIO

from keras_wm.errors import UnsafeFileError
from keras_wm.files.storage.seekable import Seekable


class Window(Seekable):
    """The bytes `[start, start + size)` of a seekable file, as a seekable file.

    `zipfile` can seek in a stored member too, but reads everything before the
    place it seeks to.

    Args:
        file: The file to look into. It is not closed with the window.
        start: Where the window starts.
        size: Number of bytes in the window.
        budget: Number of bytes that may be read through the window in all, or
            `None` for any number. It may be set again.
        beyond: The error when there is nothing left of the budget.
    """

    def __init__(
        self,
        file: BinaryIO,
        start: int,
        size: int,
        budget: int | None = None,
        beyond: str = "",
    ) -> None:
        super().__init__(size)
        self._file = file
        self._start = start
        self.budget = budget
        self._beyond = beyond

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self._size - self._position))
        if self.budget is not None:
            self.budget -= wanted
            if self.budget < 0:
                raise UnsafeFileError(self._beyond)
        self._file.seek(self._start + self._position)
        data = self._file.read(wanted)
        count = len(data)
        buffer[:count] = data
        self._position += count
        return count
