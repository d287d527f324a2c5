"""Exit status, options and printing, which the commands share."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer


class Exit(IntEnum):
    """Exit status of a command."""

    FOUND = 0
    NOT_FOUND = 1
    FAILED = 2
    USAGE = 64
    INTERRUPTED = 130


app = typer.Typer(
    help="Ownership watermarks for Keras models.",
    epilog="Terms are defined in docs/glossary.md.",
    no_args_is_help=True,
    # Local variables in a traceback could contain a secret.
    pretty_exceptions_enable=False,
    add_completion=False,
)


def option(help: str, metavar: str, *names: str) -> Any:
    """Declares an option with a placeholder for its value, such as `FILE`."""
    return typer.Option(*names, help=help, metavar=metavar)


def count_option(help: str, *names: str, least: int = 1) -> Any:
    """Declares an option whose value is an integer."""
    return typer.Option(*names, help=help, metavar="N", min=least)


KeyOption = Annotated[Path, option("Key file.", "FILE", "--key")]
SandboxOption = Annotated[
    bool,
    typer.Option(
        help="Read the file in a separate process, so that a malicious file cannot "
        "crash or hang this one."
    ),
]
LimitOption = Annotated[
    list[str] | None,
    option("Change a safety limit, such as array_bytes=8e9. Repeatable.", "NAME=VALUE"),
]
LayersOption = Annotated[
    list[str] | None,
    option(
        "Layer to search (default: all). Repeat to test several layers jointly.",
        "NAME",
        "--layer",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Report(Protocol):
    """A report that can be printed."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain Python values, which JSON can hold."""


def layer_of(layers: list[str] | None) -> str | list[str] | None:
    """Returns the layer for `verify`: `None`, a name, or a list of several names."""
    return layers[0] if layers and len(layers) == 1 else layers or None


def print_report(report: Report, as_json: bool) -> None:
    """Prints a report as text or as one JSON object."""
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else repr(report))


@contextlib.contextmanager
def silent_import() -> Iterator[None]:
    """Prepares the import of TensorFlow, and hides its start-up messages.

    The messages are written by C++ code before any log level is read, so standard
    error is redirected. TensorFlow enables oneDNN by default on the newest processors
    only. On older ones, training is twice as fast with it, so it is enabled here.
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
