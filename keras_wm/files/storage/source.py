"""An open file, and the files that belong to it by their names."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from keras_wm.errors import UnsafeFileError
from keras_wm.files.limits import Limits
from keras_wm.utils.text import printable

_HEAD_BYTES = 512


class Bundle(Protocol):
    """Files that belong together by their names: those of a folder or an archive."""

    @property
    def limits(self) -> Limits:
        """What the files may ask of this machine."""

    @property
    def names(self) -> Collection[str]:
        """The names of all the files."""

    def open(self, name: str, most: int | None = None) -> Source:
        """Opens one of the files.

        Args:
            name: Its name.
            most: The size it may have; `None` for any that the limits allow.

        Returns:
            The open file.

        Raises:
            ModelFileError: If there is none of that name, or it cannot be opened.
            UnsafeFileError: If it is larger than `most`.
        """


@dataclass(frozen=True)
class Source:
    """An open file, wherever it is.

    Attributes:
        file: The file, seekable and binary.
        size: Its size in bytes.
        head: Its first bytes.
        limits: What it may ask of this machine.
        beside: The folder or the archive that it is in, if that is known.
    """

    file: BinaryIO
    size: int
    head: bytes
    limits: Limits
    beside: Bundle | None = None


def as_source(file: BinaryIO, limits: Limits, beside: Bundle | None = None) -> Source:
    """An open file as a source, at its start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return Source(file, size, head, limits, beside)


def vet_size(name: str, size: int, most: int) -> None:
    """Refuses a file of a bundle that is larger than it may be."""
    if size > most:
        raise UnsafeFileError(
            f"'{printable(name)}' has {size:,} bytes, more than "
            f"the {most:,} allowed. Raise the limit if you trust the file."
        )
