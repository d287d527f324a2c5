"""The command line.

Exit status: 0 a mark was found (or the job is done), 1 no mark was found, 2 something
could not be read, was refused or failed, 64 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import typer

from keras_wm.cli import claim, owner, research, slmc, verifier
from keras_wm.cli.app import Exit, app

# In the order in which the help lists them.
for command in (
    *(owner.keygen, owner.publish),
    *(verifier.verify, verifier.scan, verifier.inspect, verifier.compare),
    owner.derive,
    *(research.evaluate, research.experiment, research.demo),
):
    app.command()(command)
app.add_typer(claim.claim, name="claim")
app.add_typer(slmc.slmc, name="slmc")


def main() -> None:
    """Runs the command line. Errors are printed on one line, without a traceback."""
    # Click's own status of wrong usage, 2, means here that a file could not be read.
    # Some versions of Typer bundle Click and do not export this class.
    usage_error: Any = typer.BadParameter.__base__
    usage_error.exit_code = Exit.USAGE
    # Click's status of an interrupt, 1, means here that no mark was found.
    signal.signal(signal.SIGINT, lambda *_: sys.exit(Exit.INTERRUPTED))
    try:
        app()
    except (ImportError, OSError, TypeError, ValueError) as error:
        typer.echo(f"keras-wm: {' '.join(str(error).split())}", err=True)
        sys.exit(Exit.FAILED)
