"""Writing a file completely or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yields a temporary path in the same folder, and then moves that file to `path`.

    Args:
        path: File to write.
        overwrite: Whether to replace an existing file.

    Yields:
        An unused path with the same suffixes, in the same folder.

    Raises:
        FileExistsError: If `path` exists and `overwrite` is false.
        FileNotFoundError: If the folder does not exist.
    """
    check_folder(path)
    if not overwrite and path.exists():
        raise FileExistsError(_occupied(path))
    # The name is hidden. It keeps all suffixes, from which Keras selects the format.
    temporary = path.with_name(f".{secrets.token_hex(8)}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _move_without_overwriting(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Raises FileNotFoundError unless the folder of `path` exists.

    Call it before long work whose result is written to `path`.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to write to.")


def _move_without_overwriting(temporary: Path, path: Path) -> None:
    """Moves a file, and does not replace one that was written in the meantime."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise FileExistsError(_occupied(path)) from None
    except OSError:  # A file system without hard links.
        temporary.rename(path)


def _occupied(path: Path) -> str:
    return (
        f"{str(path)!r} exists already and is not overwritten. Choose another name, "
        "or pass overwrite=True to replace it."
    )
