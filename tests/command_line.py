"""Runs the command line, in this process or as a process of its own."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from unittest import mock

# The width of a terminal, and no colours.
TERMINAL = {"COLUMNS": "100", "NO_COLOR": "1"}

# Limits that let the file of `write_endless` take its time.
PATIENT = ("--limit", "config_bytes=1e9", "--limit", "json_values=1e9")


def run(*arguments, **environment):
    """Runs keras-wm in this process; returns what `run_process` returns."""
    from keras_wm.cli import main

    command = ["keras-wm", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGINT)
    try:
        with (
            mock.patch.object(sys, "argv", command),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO())),
            mock.patch.dict(os.environ, TERMINAL | environment),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    finally:
        # main() sets a handler for the whole process.
        signal.signal(signal.SIGINT, handler)
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


def run_process(*arguments, **environment):
    """Runs keras-wm as its own process."""
    return subprocess.run(
        [sys.executable, "-m", "keras_wm", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | TERMINAL | environment,
        check=False,
    )


def assert_fails(result, status, complaint):
    """Asserts that a command failed with one line, and without a traceback."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("keras-wm: ")
    assert complaint in lines[0]
