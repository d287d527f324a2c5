"""Open files and folders, and errors that name them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, Protocol

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files.limits import Limits
from keras_wm.files.storage.location import Location, locate
from keras_wm.utils.text import printable

# 262 bytes identify a tar archive; the rest shows the first keys of a JSON index.
_HEAD_BYTES = 512


class Bundle(Protocol):
    """Files that belong together by name: a folder or an archive.

    Attributes:
        limits: Limits on the resources that the files can use.
    """

    limits: Limits

    @property
    def names(self) -> Collection[str]:
        """The names of all files."""

    def open(self, name: str, max_bytes: int | None = None) -> Source:
        """Opens one file.

        Args:
            name: Name of the file.
            max_bytes: Largest accepted size, or `None` for any size within the limits.

        Returns:
            The open file.

        Raises:
            ModelFileError: If there is no file of that name, or it cannot be opened.
            UnsafeFileError: If it is larger than `max_bytes`.
        """


@dataclass(frozen=True)
class Source:
    """An open file in a local or remote file system, or in an archive.

    Attributes:
        file: Seekable binary file.
        size: Size in bytes.
        head: First bytes of the file.
        limits: Limits on the resources that the file can use.
        bundle: Folder or archive that contains the file, if known.
    """

    file: BinaryIO
    size: int
    head: bytes
    limits: Limits
    bundle: Bundle | None = None


class Folder:
    """A folder as a `Bundle`.

    Args:
        location: Location of the folder.
        limits: Limits on the resources that a file can use.
        stack: Closes the opened files.
    """

    def __init__(self, location: Location, limits: Limits, stack: ExitStack) -> None:
        self.limits = limits
        self._location = location
        self._stack = stack

    @cached_property
    def names(self) -> list[str]:
        """The sorted names of all files and folders in the folder."""
        return sorted(self._location.names())

    def open(self, name: str, max_bytes: int | None = None) -> Source:
        """Opens one file; see `Bundle.open`."""
        member = self._location.member(name)
        if member.is_folder():
            raise UnsupportedFileError("it is a folder, where a file is expected.")
        file = self._stack.enter_context(member.open())
        source = as_source(file, self.limits, self)
        vet_size(name, source.size, max_bytes)
        return source


def open_path(path: str, limits: Limits, stack: ExitStack) -> Source | Folder:
    """Opens a path or, if it contains `"://"`, a URL.

    Args:
        path: Path or URL.
        limits: Limits on the resources that the file can use.
        stack: Closes the opened files.

    Returns:
        The open file, or the folder.

    Raises:
        ModelFileError: If it does not exist or cannot be opened.
        UnsafeFileError: If it is a FIFO, a socket or a device.
    """
    location = locate(path)
    if location.is_folder():
        return Folder(location, limits, stack)
    folder = Folder(location.parent(), limits, stack)
    return as_source(stack.enter_context(location.open()), limits, folder)


def as_source(file: BinaryIO, limits: Limits, bundle: Bundle | None = None) -> Source:
    """Returns an open file as a `Source`, positioned at its start."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    return Source(file, size, head, limits, bundle)


def vet_size(name: str, size: int, max_bytes: int | None) -> None:
    """Raises UnsafeFileError if a file of a bundle is larger than allowed."""
    if max_bytes is not None and size > max_bytes:
        raise UnsafeFileError(
            f"'{printable(name)}' has {size:,} bytes, more than "
            f"the {max_bytes:,} allowed. Raise the limit if you trust the file."
        )


@contextmanager
def naming_errors(path: str) -> Iterator[None]:
    """Converts every exception to a `ModelFileError` that names the file.

    Args:
        path: Path or URL of the file that is read.

    Raises:
        ModelFileError: If the body raises any exception.
    """
    shown = printable(path, most=1000)
    try:
        yield
    except ModelFileError as error:
        raise type(error)(f"{shown}: {error}") from error.__cause__
    except MemoryError as error:
        raise UnsafeFileError(
            f"{shown}: needs more memory than is available, or than "
            "Limits.memory_bytes allows in a sandbox."
        ) from error
    # h5py and zipfile raise almost any exception on damaged input, and remote file
    # systems raise exceptions of their own.
    except Exception as error:
        reason = f"{type(error).__name__}: {printable(str(error))}"
        raise ModelFileError(
            f"{shown}: cannot be read; it may be damaged or truncated ({reason})."
        ) from error
