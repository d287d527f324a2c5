"""Runs the examples, each in a process of its own, and prints a table.

    python examples/run.py [NAME ...]

The columns are: the lines of code in the example, and how many of them mention
keras_wm; bit error rate and corrected p-value in the published file; the figure of
merit of the marked network and of the unmarked one; and the time of the process.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import subprocess
import sys
import tempfile
import time
import tokenize
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

FOLDER = Path(__file__).resolve().parent
EXAMPLES = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if path.stem != "run" and not path.stem.startswith("_")
)

COLUMNS = (
    *("example", "lines", "keras_wm", "BER", "log10 p", "verdict"),
    *("figure", "with", "without", "seconds"),
)


def run(name: str, folder: str | Path) -> dict[str, Any]:
    """Runs an example in a folder, where it writes its files.

    Args:
        name: Name of the example.
        folder: Working directory of the process.

    Returns:
        The summary that the example prints, see `_report.report`.

    Raises:
        RuntimeError: If the example fails.
    """
    process = subprocess.run(  # noqa: S603 (our own scripts)
        [sys.executable, str(FOLDER / f"{name}.py")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise RuntimeError(f"{name}.py failed:\n{process.stdout}\n{process.stderr}")
    *_, summary = process.stdout.strip().splitlines()
    return dict(json.loads(summary))


def count_lines(name: str) -> tuple[int, int]:
    """Returns the lines of code in an example, and those that mention keras_wm.

    Docstrings, comments and blank lines do not count.
    """
    source = (FOLDER / f"{name}.py").read_text("utf-8")
    documentation = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    code = [token for token in tokens if token.type not in skipped]
    lines = {token.start[0] for token in code} - documentation
    ours = {token.start[0] for token in code if token.string == "keras_wm"}
    return len(lines), len(ours)


def row(name: str) -> tuple[str, ...]:
    """Runs an example and returns its row of the table.

    Raises:
        RuntimeError: If the example fails.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        summary = run(name, folder)
    seconds = time.perf_counter() - start
    lines, ours = count_lines(name)
    return (
        name,
        str(lines),
        str(ours),
        f"{summary['ber']:.3f}",
        f"{summary['log10_p']:.1f}",
        summary["verdict"],
        summary["metric"],
        f"{summary['marked']:.3f}",
        f"{summary['unmarked']:.3f}",
        f"{seconds:.0f}",
    )


def main() -> int:
    """Prints the table; returns 1 if an example fails or its mark is not proven."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names or EXAMPLES
    if unknown := sorted(set(names) - set(EXAMPLES)):
        parser.error(f"Expected names of {', '.join(EXAMPLES)}. Received: {unknown}")
    table = Table(title="Networks with and without a mark", box=SIMPLE, padding=0)
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    errors = Console(stderr=True)
    proven = 0
    for name in track(names, description="examples", console=errors):
        try:
            cells = row(name)
        except RuntimeError as error:
            errors.print(str(error), markup=False)
            cells = (name, "failed")
        proven += "proven" in cells
        # Shown at once, because all of them take minutes.
        errors.print(*cells)
        table.add_row(*cells)
    Console(width=110).print(table)
    return 0 if proven == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
