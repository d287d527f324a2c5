"""Where a path or a URL leads: a file or a folder, on this machine or elsewhere."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.storage.blocks import Blocks
from keras_wm.utils.text import printable

# What is looked at in a file to list its arrays is small and far apart.
_BUFFER_BYTES = 1024


class Place(Protocol):
    """A file or a folder that may or may not be there."""

    def is_folder(self) -> bool:
        """Whether it is a folder and not a file.

        Raises:
            ModelFileError: If it does not exist.
            UnsafeFileError: If it is a FIFO, a socket or a device.
        """

    def open(self) -> BinaryIO:
        """Opens a file for reading."""

    def names(self) -> list[str]:
        """The names in a folder."""

    def member(self, name: str) -> Place:
        """What is in a folder under a name."""

    def parent(self) -> Place:
        """The folder that it is in."""


def find_place(path: str) -> Place:
    """Where a path leads or, where it contains `"://"`, a URL."""
    return remote_place(path) if "://" in path else LocalPlace(Path(path))


@dataclass(frozen=True)
class LocalPlace:
    """A place in this machine's own file system. Symbolic links are followed."""

    path: Path

    def is_folder(self) -> bool:
        with _told_plainly():
            mode = self.path.stat().st_mode
        # Opening a FIFO blocks and opening a device may act on it.
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise UnsafeFileError(
                "not a regular file but a pipe, socket or device. "
                "Copy its contents to a file first."
            )
        return stat.S_ISDIR(mode)

    def open(self) -> BinaryIO:
        with _told_plainly():
            return self.path.open("rb", buffering=_BUFFER_BYTES)

    def names(self) -> list[str]:
        with _told_plainly():
            return [member.name for member in self.path.iterdir()]

    def member(self, name: str) -> LocalPlace:
        return LocalPlace(self.path / name)

    def parent(self) -> LocalPlace:
        return LocalPlace(self.path.parent)


@dataclass(frozen=True)
class RemotePlace:
    """A place in one of fsspec's file systems."""

    system: Any
    path: str

    def is_folder(self) -> bool:
        with _told_plainly(remote=True):
            kind = self.system.info(self.path)["type"]
        if kind not in ("file", "directory"):
            raise UnsafeFileError(
                "not a regular file. Copy its contents to a file first."
            )
        return bool(kind == "directory")

    def open(self) -> BinaryIO:
        with _told_plainly(remote=True):
            file = self.system.open(self.path, "rb", cache_type="none")
            return cast(BinaryIO, Blocks(file))

    def names(self) -> list[str]:
        with _told_plainly(remote=True):
            paths = self.system.ls(self.path, detail=False)
        return [str(path).rstrip("/").rpartition("/")[2] for path in paths]

    def member(self, name: str) -> RemotePlace:
        return RemotePlace(self.system, f"{self.path.rstrip('/')}/{name}")

    def parent(self) -> RemotePlace:
        return RemotePlace(self.system, self.path.rpartition("/")[0])


def remote_place(url: str) -> RemotePlace:
    """Where a URL leads.

    Raises:
        ModelFileError: If fsspec, or what it needs for that kind of URL, is not
            installed, or it does not know that kind.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ModelFileError(
            'reading URLs needs fsspec: pip install "keras-wm[remote]".'
        ) from None
    with _told_plainly(remote=True):
        return RemotePlace(*url_to_fs(url))


@contextmanager
def _told_plainly(remote: bool = False) -> Iterator[None]:
    """Says why something cannot be opened, whatever a file system raises."""
    try:
        yield
    except FileNotFoundError:
        raise ModelFileError(
            "there is no such file, or its server cannot be reached."
            if remote
            else "there is no such file."
        ) from None
    except Exception as error:  # Each file system raises its own.
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"cannot be opened: {printable(reason)}.") from error
