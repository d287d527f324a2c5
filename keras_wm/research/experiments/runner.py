"""Doing experiments: their runs, their records, their tables and figures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from keras_wm.research.datasets import load_pictures
from keras_wm.research.experiments.catalogue import experiments_named
from keras_wm.research.experiments.columns import LEGEND
from keras_wm.research.experiments.experiment import Experiment
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Records, Row
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import ResultTable
from keras_wm.research.experiments.worker import answers
from keras_wm.utils.child_process import Message

RECORDS = "records.jsonl"


def run_experiment(
    name: str,
    settings: Settings,
    folder: Path,
    console: Console | None = None,
    workers: int = 1,
) -> list[ResultTable]:
    """Does an experiment, or what is left of it, and shows what came out.

    Every run that is finished is in `records.jsonl`; one that was killed is done
    again, the others are not. Tables (`<name>.md`) and figures
    (`<name>-<figure>.png`) are made from the records alone.

    Args:
        name: One of `EXPERIMENTS`, or a suite: `"all"` of the papers, `"robustness"`.
        settings: The host network, its data and how many seeds.
        folder: Where records, networks, tables and figures go.
        console: What to report to; standard output otherwise.
        workers: How many processes train networks at once; with 1, this one does.

    Returns:
        The tables.

    Raises:
        RuntimeError: If one of several processes fails.
        ValueError: If there is no such experiment or data, or the folder's records
            are none.
    """
    console = console or Console()
    # Each network is traced anew, which TensorFlow takes for a mistake.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    chosen = experiments_named(name)
    folder.mkdir(parents=True, exist_ok=True)
    records = Records(folder / RECORDS)
    tables = []
    for experiment in chosen:
        _Study(experiment, settings, folder, records, workers).finish(console)
        tables += report(experiment, settings, records, folder, console)
    return tables


class _Study:
    """An experiment with its settings, and what is finished of it."""

    def __init__(
        self,
        experiment: Experiment,
        settings: Settings,
        folder: Path,
        records: Records,
        workers: int,
    ) -> None:
        self._experiment, self._settings = experiment, settings
        self._folder, self._records = folder, records
        self._workers = workers
        self._runs = list(experiment.runs(settings))

    def finish(self, console: Console) -> None:
        """Does the runs that are not in the records, and first what they need."""
        left = [
            number
            for number, run in enumerate(self._runs)
            if self._records.find(
                self._experiment.name, run.labels, self._settings.host
            )
            is None
        ]
        if not left:
            return
        # Before every process reads them: whether they can be read, or downloaded.
        load_pictures(self._settings.data)
        with _progress(console) as progress:
            needed = {self._runs[number].network for number in left}
            networks = self._experiment.networks(self._settings)
            store = NetworkStore(self._settings, self._folder)
            missing = [
                number
                for number, network in enumerate(networks)
                if network in needed and not store.has(network)
            ]
            self._do("network", missing, len(missing), progress, lambda *_: None)
            self._do("run", left, len(self._runs), progress, self._record)

    def _do(
        self,
        kind: str,
        numbers: list[int],
        total: int,
        progress: Progress,
        finished: Callable[[int, Message], None],
    ) -> None:
        task = progress.add_task(
            f"{self._experiment.name}: {kind}s",
            total=total,
            completed=total - len(numbers),
        )
        questions = [
            {"experiment": self._experiment.name, kind: number} for number in numbers
        ]
        # No process without work.
        workers = min(self._workers, len(questions)) or 1
        for question, answer in answers(
            questions, self._settings, self._folder, workers
        ):
            finished(question[kind], answer)
            progress.advance(task)

    def _record(self, number: int, answer: Message) -> None:
        self._records.add(
            self._experiment.name,
            self._runs[number].labels,
            self._settings.host,
            answer["figures"],
            answer["seconds"],
        )


def recorded_rows(
    experiment: Experiment, settings: Settings, records: Records
) -> list[Row]:
    """What the finished runs of an experiment gave, in the order of its runs."""
    found = (
        records.find(experiment.name, run.labels, settings.host)
        for run in experiment.runs(settings)
    )
    return [row for row in found if row is not None]


def report(
    experiment: Experiment,
    settings: Settings,
    records: Records,
    folder: Path,
    console: Console,
) -> list[ResultTable]:
    """Prints an experiment's tables, and writes them and its figures."""
    rows = recorded_rows(experiment, settings, records)
    tables = [
        replace(table, title=f"{table.title} ({settings.title})")
        for table in experiment.tables(rows)
    ]
    for table in tables:
        table.print(console)
    console.print(LEGEND, style="dim")
    text = "\n".join([*(table.to_markdown() for table in tables), f"{LEGEND}\n"])
    (folder / f"{experiment.name}.md").write_text(text, encoding="utf-8")
    for figure, drawing in experiment.figures(rows).items():
        drawing.savefig(folder / f"{experiment.name}-{figure}.png")
    return tables


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
