"""From a path or a URL to a seekable stream of bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError


@contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a file for reading, and closes it.

    Args:
        path: A local path, or a URL that fsspec knows.

    Raises:
        ModelFileError: If it cannot be opened.
        UnsafeFileError: If it is not a regular file: a pipe or device could
            block its reader for ever.
        UnsupportedFileError: If it is a folder.
    """
    name = os.fspath(path)
    stream = _open_url(name) if "://" in name else _open_local(name)
    with stream:
        yield stream


def _open_local(name: str) -> IO[bytes]:
    try:
        _check_kind(name, Path(name).stat().st_mode)
        return Path(name).open("rb")
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"Cannot open {name!r}: {error.strerror}.") from error
    except ValueError as error:  # A path with a null character.
        raise ModelFileError(f"Cannot open {name!r}: {error}.") from error


def _check_kind(name: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UnsupportedFileError(f"{name!r} is a folder, not a model file.")
    if not stat.S_ISREG(mode):
        raise UnsafeFileError(
            f"{name!r} is not a regular file but a pipe, socket or device, and is not "
            "opened. Copy its content to a file."
        )


def _open_url(name: str) -> IO[bytes]:
    try:
        import fsspec
    except ImportError as error:
        raise ModelFileError(
            f"Reading the URL {name!r} needs fsspec. "
            'Install it with: pip install "keras-wm[remote]"'
        ) from error
    try:
        return cast("IO[bytes]", fsspec.open(name, "rb").open())
    except Exception as error:  # Each file system raises its own kinds.
        raise ModelFileError(f"Cannot open {name!r}: {error}") from error
