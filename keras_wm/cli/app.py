"""The application, and the exit status and printing that its commands share."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import typer


class Exit(IntEnum):
    """Exit status of a command."""

    FOUND = 0
    NOT_FOUND = 1
    FAILED = 2
    UNUSED = 3
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


def found_status(
    is_met: bool, is_found: bool, is_unused: bool, required: str | None
) -> Exit:
    """Returns the exit status of a search.

    Args:
        is_met: Whether a mark was found with the required standing.
        is_found: Whether a mark was found.
        is_unused: Whether a mark was found in weights that the model does not use.
        required: The required standing, or `None`. If a mark was found without it, a
            line on standard error says so.
    """
    if is_met:
        return Exit.FOUND
    if is_found:
        typer.echo(
            f"keras-wm: This is not what --require {required} asks for: a finding of "
            "that standing, with a p-value that makes it evidence.",
            err=True,
        )
        return Exit.NOT_FOUND
    return Exit.UNUSED if is_unused else Exit.NOT_FOUND


def print_report(report: Any, as_json: bool) -> None:
    """Prints a report, such as a `Verification`, as text or as one JSON object."""
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
