"""What commands are given: keys, limits, lists of files."""

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
    """Reads a key file; asks for its passphrase if it has one.

    Either file of a pair `*_w.npy` and `*_b.npy`, which the papers' reference code
    writes, stands for both.
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
            "Expected a key file, or a pair of the papers' reference code: NAME_w.npy "
            f"with NAME_b.npy beside it. Received: {str(path)!r}"
        )
    return path.with_name(f"{name}_w.npy"), path.with_name(f"{name}_b.npy")


def new_passphrase() -> str:
    """The passphrase for a new key file."""
    return os.environ.get(PASSPHRASE_VARIABLE) or _ask_passphrase(confirm=True)


def _ask_passphrase(confirm: bool) -> str:
    try:
        return str(
            typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
        )
    except typer.Abort:
        # Its own status, 1, would say that the mark was not found.
        raise ValueError("No passphrase was given.") from None


def read_limits(given: list[str] | None) -> Limits:
    """The limits, some of them changed: `["array_bytes=8e9"]`."""
    from keras_wm.files.limits import Limits

    names = [field.name for field in dataclasses.fields(Limits)]
    changes = {}
    for one in given or []:
        name, _, value = one.partition("=")
        try:
            changes[name] = int(float(value))
        except (OverflowError, ValueError):
            name = ""
        if name not in names:
            raise ValueError(
                f"Expected --limit NAME=VALUE, VALUE a number and NAME one of "
                f"{', '.join(names)}. Received: {one!r}"
            )
    return Limits(**changes)


@contextlib.contextmanager
def reader_of(limit: list[str] | None, sandbox: bool) -> Iterator[dict[str, Any]]:
    """How to read a file: arguments of `verify` and `inspect`."""
    limits = read_limits(limit)
    if not sandbox:
        yield {"limits": limits}
        return
    from keras_wm.files.sandbox import Sandbox

    with Sandbox(limits) as child:
        # It imports what it needs while this process does the same.
        child.start()
        yield {"limits": limits, "sandbox": child}


def read_lines(path: Path | None) -> list[str]:
    """The lines of a file, or of the input, without empty ones.

    Raises:
        ValueError: If the file is not text in UTF-8, or there is nothing in it.
    """
    if path is None:
        return []
    content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    try:
        # Some editors begin a file with a mark of its encoding.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            "Expected text in UTF-8, one name a line. "
            f"Received: {str(path)!r} ({error})"
        ) from error
    # Not by splitlines: a name may hold what Unicode calls a line's end.
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f"Expected one name a line. Received none in {str(path)!r}.")
    return lines
