"""Executes the notebooks and writes them back with their outputs.

    python notebooks/execute.py [--check] [NAME.ipynb ...]

With `--check`, the notebooks stay unchanged, and the command fails if a cell raises an
error or prints another text than the notebook shows.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
RECORDS = "records"
# Draws a new key and trains, so that its figures differ from run to run.
RANDOM = "quickstart.ipynb"


def execute(path: Path) -> nbformat.NotebookNode:
    """Executes a notebook in a new kernel, in a folder that holds only the records."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FOLDER / RECORDS, Path(folder, RECORDS))
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=1200, resources=resources, coalesce_streams=True
        ).execute()
    for cell in notebook.cells:
        # Times of execution would show up in every diff.
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in cell.outputs if not _is_start_up_note(output)
            ]
    return notebook


def _is_start_up_note(output: nbformat.NotebookNode) -> bool:
    """Returns whether an output is the log that TensorFlow writes when imported."""
    return output.get("name") == "stderr" and "absl::InitializeLog" in output.text


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """Returns the texts that the cells print, without objects that are only drawn."""
    return [
        output.get("text") or output.data.get("text/plain", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" not in output.get("data", {})
    ]


def check(path: Path, executed: nbformat.NotebookNode) -> None:
    """Ends the command if a notebook shows another text than its cells print."""
    if path.name == RANDOM:
        return
    shown = "\n".join(texts(nbformat.read(path, as_version=4)))
    printed = "\n".join(texts(executed))
    if shown != printed:
        lines = difflib.unified_diff(
            shown.splitlines(), printed.splitlines(), "shown", "printed", lineterm=""
        )
        sys.exit(
            "\n".join([f"{path}: the cells print another text.", *lines])
            + f"\nExecute it by `python notebooks/execute.py {path}`."
        )


def main() -> None:
    """Executes the given notebooks, or all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for path in arguments.notebooks or sorted(FOLDER.glob("*.ipynb")):
        notebook = execute(path)
        if arguments.check:
            check(path, notebook)
        else:
            nbformat.write(notebook, path)
        print(f"{path.name}: {len(notebook.cells)} cells, no error")


if __name__ == "__main__":
    main()
