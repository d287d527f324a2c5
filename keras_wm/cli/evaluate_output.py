"""Runs `keras-wm evaluate` and prints its results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from keras_wm.research.datasets import load_examples
from keras_wm.research.evaluation.evaluator import evaluate
from keras_wm.research.evaluation.html_report import (
    attack_row,
    page_template,
    requirements,
    write_report,
)
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.progress import progress_bar


def run_evaluation(
    model: Path, key: WatermarkKey, data: str | None, folder: Path, **options: Any
) -> None:
    """Evaluates a marked model file, prints the report and writes it.

    Args:
        model: Path of the owner's marked network.
        key: The key that marked it.
        data: Data set, as for `load_examples`, or `None` to train nothing.
        folder: Folder for `evaluation.html` and `evaluation.json`.
        **options: Options of `evaluate`.
    """
    # Check before an hour of attacks that the report can be written.
    page_template()
    # Each network is traced again, which TensorFlow warns about.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    examples = None if data is None else load_examples(data)
    with progress_bar("attacks", shown=True) as show:
        evaluation = evaluate(model, key, examples, progress=show, **options)
    console = Console()
    for requirement in requirements(evaluation):
        console.print(f"[bold]{requirement.name}[/]: ", end="")
        console.print(requirement.result, markup=False)
    headings = ("attack", "strengths", "p-value", "verdict")
    table = Table(*headings, box=SIMPLE_HEAD, pad_edge=False)
    for summary in evaluation.attack_summaries:
        table.add_row(summary.attack, *attack_row(summary))
    console.print(table)
    files = write_report(evaluation, folder)
    console.print(f"Report: {', '.join(map(str, files))}")
