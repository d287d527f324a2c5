"""Reads the inputs of commands: keys, limits and lists of names."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from keras_wm.files.limits import Limits
    from keras_wm.scheme.key import WatermarkKey

PASSPHRASE_VARIABLE = "KERAS_WM_PASSPHRASE"  # noqa: S105 (a name, not a passphrase)


def load_key(path: Path) -> WatermarkKey:
    """Reads a key file. Asks for its passphrase if it is encrypted.

    The key can also be a pair of files `*_w.npy` and `*_b.npy`, as the papers'
    reference code writes them. Then `path` is either of the two.
    """
    from keras_wm.errors import WrongPassphraseError
    from keras_wm.scheme.key import WatermarkKey

    if path.suffix == ".npy":
        return WatermarkKey.from_reference(*_reference_pair(path))
    try:
        return WatermarkKey.load(path)
    except WrongPassphraseError:
        passphrase = os.environ.get(PASSPHRASE_VARIABLE)
        if passphrase is None and not sys.stdin.isatty():
            raise
    return WatermarkKey.load(path, passphrase or _ask_passphrase(confirm=False))


def _reference_pair(path: Path) -> tuple[Path, Path]:
    name = path.name.removesuffix("_w.npy").removesuffix("_b.npy")
    if name == path.name:
        raise ValueError(
            "Expected a key file, or one of the two files NAME_w.npy and NAME_b.npy "
            "that the papers' reference code writes to one folder. "
            f"Received: {str(path)!r}"
        )
    return path.with_name(f"{name}_w.npy"), path.with_name(f"{name}_b.npy")


def new_passphrase() -> str:
    """Returns the passphrase for a new key file."""
    return os.environ.get(PASSPHRASE_VARIABLE) or _ask_passphrase(confirm=True)


def _ask_passphrase(confirm: bool) -> str:
    try:
        text = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
    except typer.Abort:
        # The exit status of an abort, 1, means here that no mark was found.
        raise ValueError("No passphrase was given.") from None
    return str(text)


def read_limits(options: list[str] | None) -> Limits:
    """Returns the default limits, changed by options such as `"array_bytes=8e9"`."""
    from keras_wm.files.limits import Limits

    names = [field.name for field in dataclasses.fields(Limits)]
    changes = {}
    for option in options or []:
        name, _, value = option.partition("=")
        try:
            changes[name] = int(float(value))
        except (OverflowError, ValueError):
            name = ""
        if name not in names:
            raise ValueError(
                f"Expected --limit NAME=VALUE, VALUE a number and NAME one of "
                f"{', '.join(names)}. Received: {option!r}"
            )
    return Limits(**changes)


@contextlib.contextmanager
def file_reader(limit: list[str] | None, sandbox: bool) -> Iterator[dict[str, Any]]:
    """Yields the keyword arguments `limits` and `sandbox` of `verify` and `inspect`."""
    from keras_wm.files.sandbox import Sandbox

    limits = read_limits(limit)
    with Sandbox(limits) if sandbox else contextlib.nullcontext() as child:
        if child is not None:
            # It imports its modules while this process imports the same ones.
            child.start()
        yield {"limits": limits, "sandbox": child or False}


def check_unused(path: Path, remedy: str = "Choose another name.") -> None:
    """Raises FileExistsError if a file exists. Call it before long work to write it."""
    if path.exists():
        raise FileExistsError(
            f"{str(path)!r} exists already and is not overwritten. {remedy}"
        )


def read_names(path: Path | None) -> list[str]:
    """Reads a file with one name per line. Empty lines are skipped.

    Args:
        path: Path of the file, `-` for standard input, or `None` for no names.

    Returns:
        The names.

    Raises:
        ValueError: If the file is not text in UTF-8, or contains no name.
    """
    if path is None:
        return []
    content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        # Some editors start a file with a byte order mark.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            "Expected text in UTF-8, one name per line. "
            f"Received: {str(path)!r} ({error})"
        ) from error
    # Not str.splitlines: a name can contain one of Unicode's other line separators.
    lines = text.replace("\r", "\n").split("\n")
    names = [name for line in lines if (name := line.strip())]
    if not names:
        raise ValueError(f"Expected one name per line. Received none in {str(path)!r}.")
    return names


def split_names(names: str) -> tuple[str, ...]:
    """Returns the names in a text such as `"direct,diff"`."""
    return tuple(name.strip() for name in names.split(","))
