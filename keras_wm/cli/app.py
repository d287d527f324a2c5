"""What the commands have in common: exit status, options, how reports are shown."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Exit(IntEnum):
    """What the exit status says."""

    FOUND = 0
    NOT_FOUND = 1
    FAILED = 2
    USAGE = 64
    INTERRUPTED = 130


app = typer.Typer(
    help="Ownership watermarks for Keras models.",
    no_args_is_help=True,
    # Local variables in a traceback could show what is secret.
    pretty_exceptions_enable=False,
    add_completion=False,
)

KeyOption = Annotated[
    Path, typer.Option("--key", help="The key file.", show_default=False)
]
SandboxOption = Annotated[
    bool,
    typer.Option(help="Read the file in a process of its own, which it may crash."),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        help="What a file may ask for, such as array_bytes=8e9; may be repeated.",
        metavar="NAME=VALUE",
    ),
]
LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        help="The layer to look in, and all of them otherwise; repeated, layers to "
        "read as one.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def layer_of(layers: list[str] | None) -> str | list[str] | None:
    """Of one layer every kernel is tried; several layers are read as one."""
    return layers[0] if layers and len(layers) == 1 else layers or None


def print_report(report: Any, as_json: bool) -> None:
    """Prints a report as a reader likes it, or as one JSON object."""
    if as_json:
        print_json(report.to_dict())
    else:
        typer.echo(repr(report))


def print_json(value: dict[str, Any]) -> None:
    """Prints one JSON object."""
    typer.echo(json.dumps(value, indent=2))


@contextlib.contextmanager
def silent_import() -> Iterator[None]:
    """Imports TensorFlow as a command does: fast, and without its start-up notes.

    They come from C++, before any log level is heeded, so that only the descriptor
    can be silenced. By itself it uses oneDNN on the newest processors alone; on older
    ones that trains twice as fast.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
