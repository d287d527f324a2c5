"""From a path or a URL to a seekable file."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files.blocks import Blocks
from keras_wm.files.kernel import printable
from keras_wm.files.limits import Limits

_HEAD_BYTES = 512
# What is looked at in a file to list its arrays is small and far apart.
_BUFFER_BYTES = 1024


@dataclass(frozen=True)
class Source:
    """An open file, wherever it is.

    Attributes:
        file: The file, seekable and binary.
        size: Its size in bytes.
        head: Its first bytes.
        limits: What it may ask of this machine.
    """

    file: BinaryIO
    size: int
    head: bytes
    limits: Limits


def open_source(path: str, limits: Limits, stack: ExitStack) -> Source:
    """Opens a path or, where it contains `"://"`, a URL.

    Args:
        path: The path or URL.
        limits: What the file may ask of this machine.
        stack: Closes the file.

    Returns:
        The open file.

    Raises:
        ModelFileError: If it does not exist or cannot be opened.
        UnsafeFileError: If it is a FIFO, a socket or a device.
        UnsupportedFileError: If it is a folder.
    """
    file = stack.enter_context(_open_url(path) if "://" in path else _open_local(path))
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return Source(file, size, file.read(_HEAD_BYTES), limits)


def _open_local(path: str) -> BinaryIO:
    try:
        # Opening a FIFO blocks and opening a device may act on it, so look first.
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnsupportedFileError(_folder(Path(path)))
        if not stat.S_ISREG(mode):
            raise UnsafeFileError(
                "not a regular file but a pipe, socket or device. "
                "Copy its contents to a file first."
            )
        return Path(path).open("rb", buffering=_BUFFER_BYTES)
    except FileNotFoundError:
        raise ModelFileError("there is no such file.") from None
    except OSError as error:
        raise ModelFileError(f"cannot be opened: {error.strerror}.") from error


def _folder(path: Path) -> str:
    if (path / "saved_model.pb").exists():
        looks = "a TensorFlow SavedModel"
    elif (path / "config.json").exists():
        looks = "an unzipped Keras model or a KerasHub preset"
    else:
        looks = "a folder"
    return f"not a Keras model file: it is {looks}. Name a file in it."


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

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
    try:
        system, path = url_to_fs(url)
    except Exception as error:  # Each file system raises its own.
        raise ModelFileError(f"cannot be opened: {printable(str(error))}") from error
    return system, path


def _open_url(url: str) -> BinaryIO:
    system, path = file_system(url)
    try:
        return cast(BinaryIO, _open_remote(system, path))
    except ModelFileError:
        raise
    except FileNotFoundError:
        raise ModelFileError(
            "there is no such file, or its server cannot be reached."
        ) from None
    except Exception as error:  # Each file system raises its own.
        raise ModelFileError(f"cannot be opened: {printable(str(error))}") from error


def _open_remote(system: Any, path: str) -> Any:
    kind = system.info(path)["type"]
    if kind == "directory":
        raise UnsupportedFileError(
            "not a Keras model file: it is a folder. Name a file in it."
        )
    if kind != "file":
        raise UnsafeFileError("not a regular file. Copy its contents to a file first.")
    return Blocks(system.open(path, "rb", cache_type="none"))
