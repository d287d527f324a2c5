"""Files and folders by path or URL, in the local or a remote file system."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.storage.streams import CachedRemoteFile
from keras_wm.utils.text import printable

# The metadata that lists a file's arrays is small and scattered over the file.
_BUFFER_BYTES = 1024


@dataclass(frozen=True)
class LocalPath:
    """A path to a file or a folder, which need not exist, in the local file system.

    Symbolic links are followed.
    """

    path: Path

    def is_folder(self) -> bool:
        """Returns whether it is a folder rather than a file.

        Raises:
            ModelFileError: If it does not exist.
            UnsafeFileError: If it is a FIFO, a socket or a device.
        """
        with _readable_errors():
            mode = self.path.stat().st_mode
        # Opening a FIFO blocks, and opening a device can have side effects.
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise UnsafeFileError(
                "not a regular file but a pipe, socket or device. "
                "Copy its contents to a file first."
            )
        return stat.S_ISDIR(mode)

    def open(self) -> BinaryIO:
        """Opens a file for reading."""
        with _readable_errors():
            return self.path.open("rb", buffering=_BUFFER_BYTES)

    def names(self) -> list[str]:
        """Returns the names of all files and folders in a folder."""
        with _readable_errors():
            return [member.name for member in self.path.iterdir()]

    def member(self, name: str) -> LocalPath:
        """Returns the location of a file or folder in this folder."""
        return LocalPath(self.path / name)

    def parent(self) -> LocalPath:
        """Returns the location of the folder that contains it."""
        return LocalPath(self.path.parent)


@dataclass(frozen=True)
class RemotePath:
    """A path in an fsspec file system; see `LocalPath` for the methods."""

    system: Any
    path: str

    def is_folder(self) -> bool:
        with _readable_errors(remote=True):
            kind = self.system.info(self.path)["type"]
        if kind not in ("file", "directory"):
            raise UnsafeFileError(
                "not a regular file. Copy its contents to a file first."
            )
        return bool(kind == "directory")

    def open(self) -> BinaryIO:
        with _readable_errors(remote=True):
            file = self.system.open(self.path, "rb", cache_type="none")
            return cast(BinaryIO, CachedRemoteFile(file))

    def names(self) -> list[str]:
        with _readable_errors(remote=True):
            paths = self.system.ls(self.path, detail=False)
        return [str(path).rstrip("/").rpartition("/")[2] for path in paths]

    def member(self, name: str) -> RemotePath:
        return RemotePath(self.system, f"{self.path.rstrip('/')}/{name}")

    def parent(self) -> RemotePath:
        return RemotePath(self.system, self.path.rpartition("/")[0])


Location: TypeAlias = LocalPath | RemotePath


def locate(path: str) -> Location:
    """Returns the location of a path or, if it contains `"://"`, of a URL."""
    return locate_url(path) if "://" in path else LocalPath(Path(path))


def locate_url(url: str) -> RemotePath:
    """Returns the location of a URL.

    Raises:
        ModelFileError: If fsspec does not know the URL's protocol, or if fsspec or
            the package for that protocol is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ModelFileError(
            'reading URLs needs fsspec: pip install "keras-wm[remote]".'
        ) from None
    with _readable_errors(remote=True):
        return RemotePath(*url_to_fs(url))


@contextmanager
def _readable_errors(remote: bool = False) -> Iterator[None]:
    """Converts every file system's exceptions to a readable `ModelFileError`."""
    try:
        yield
    except FileNotFoundError:
        raise ModelFileError(
            "there is no such file, or its server cannot be reached."
            if remote
            else "there is no such file."
        ) from None
    except Exception as error:  # Every fsspec file system raises its own kinds.
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"cannot be opened: {printable(reason)}.") from error
