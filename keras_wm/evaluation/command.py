"""The command `keras-wm evaluate`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from keras_wm.datasets import load_examples
from keras_wm.evaluation.evaluator import evaluate
from keras_wm.evaluation.page import attack_lines, require_jinja2, requirements
from keras_wm.evaluation.report import Evaluation
from keras_wm.key import WatermarkKey


def run_evaluation(
    model: Path,
    key: WatermarkKey,
    data: str | None,
    folder: Path,
    console: Console,
    **options: Any,
) -> Evaluation:
    """Evaluates a model file, shows the report and writes it.

    Args:
        model: The owner's marked network.
        key: The key that marked it.
        data: As for `load_examples`, or `None`.
        folder: Where `evaluation.html` and `evaluation.json` go.
        console: What to report to.
        **options: As for `evaluate`.

    Returns:
        The `Evaluation`.
    """
    # Before an hour of attacks: whether the report can be written.
    require_jinja2()
    # Each network is traced anew, which TensorFlow takes for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    examples = None if data is None else load_examples(data)
    with Progress(
        TextColumn("attacks"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("attacks", total=None)
        evaluation = evaluate(
            model,
            key,
            examples,
            progress=lambda done, total: progress.update(
                task, completed=done, total=total
            ),
            **options,
        )
    _show(evaluation, console)
    files = evaluation.save(folder)
    console.print(f"Report: {', '.join(map(str, files))}")
    return evaluation


def _show(evaluation: Evaluation, console: Console) -> None:
    for one in requirements(evaluation):
        console.print(f"[bold]{one.name}[/]: ", end="")
        console.print(one.answer, markup=False)
    table = Table(
        "attack",
        "strengths",
        "evidence left",
        "verdict",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for line in attack_lines(evaluation):
        table.add_row(
            *(line[name] for name in ("attack", "strengths", "evidence", "verdict"))
        )
    console.print(table)
