"""Writing a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes its place at the end.

    Args:
        path: The file to write.
        overwrite: Whether a file that is there already may be replaced.

    Yields:
        A path with the same suffix in the same folder, where nothing stands yet.

    Raises:
        FileExistsError: If `path` exists and may not be replaced.
        FileNotFoundError: If the folder does not exist.
    """
    check_folder(path)
    if not overwrite and path.exists():
        raise FileExistsError(_occupied(path))
    # A hidden name keeps every suffix, for Keras chooses the format by it.
    temporary = path.with_name(f".{secrets.token_hex(8)}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Refuses a path in a folder that is not there, before any work is done for it.

    Raises:
        FileNotFoundError: If the folder does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to write to.")


def _place(temporary: Path, path: Path) -> None:
    """Moves without replacing, also when somebody writes the same file meanwhile."""
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
