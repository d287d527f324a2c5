"""The command line.

Exit status: 0 the mark was found (or the job done), 1 it was not found, 2 something
could not be read, was refused or failed, 64 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

import typer

# Each of them adds its commands, in the order in which the help lists them.
from keras_wm.cli import owner, research, slmc, verifier  # noqa: F401
from keras_wm.cli.app import Exit, app


def main() -> None:
    """Runs the command line, errors on one line."""
    # Click's own status for wrong usage, 2, would say that a file could not be read.
    # Typer has a copy of click from some version on, and no name for this class.
    usage_error: Any = typer.BadParameter.__base__
    usage_error.exit_code = Exit.USAGE
    # Click's status for an interrupt, 1, would say that no mark was found.
    signal.signal(signal.SIGINT, _interrupted)
    try:
        app()
    except (ImportError, OSError, TypeError, ValueError) as error:
        typer.echo(f"keras-wm: {' '.join(str(error).split())}", err=True)
        sys.exit(Exit.FAILED)


def _interrupted(*_: object) -> NoReturn:
    raise SystemExit(Exit.INTERRUPTED)
