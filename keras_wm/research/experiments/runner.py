"""Doing experiments: their runs, their records, their tables and plots."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from keras_wm.research.datasets import load_pictures
from keras_wm.research.experiments.catalogue import experiments_named
from keras_wm.research.experiments.experiment import Experiment, Run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Records, Row
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import LEGEND, ResultTable
from keras_wm.research.experiments.training import Training
from keras_wm.research.experiments.worker import RUN, TRAIN, do_all
from keras_wm.utils.progress import progress_bar

RECORDS = "records.jsonl"


def run_experiment(
    name: str,
    settings: Settings,
    folder: Path,
    console: Console | None = None,
    workers: int = 1,
) -> list[ResultTable]:
    """Does an experiment, or the runs of it that are missing, and shows the results.

    Every finished run is in `records.jsonl`, and is not done again. The tables
    (`<name>.md`) and plots (`<name>-<plot>.png`) are made from the records alone.

    Args:
        name: A name in `EXPERIMENTS`, or a suite: `"all"` (the experiments of the
            papers) or `"robustness"`.
        settings: The host network, its data and the number of seeds.
        folder: Folder for records, networks, tables and plots.
        console: Console for tables and progress. Defaults to standard output.
        workers: Number of processes that train networks; 1 trains in this process.

    Returns:
        The tables.

    Raises:
        RuntimeError: If a worker process fails.
        ValueError: If the experiment or the data do not exist, or the folder's
            `records.jsonl` holds something else.
    """
    console = console or Console()
    # TensorFlow warns about repeated tracing, but every network needs its own.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    experiments = experiments_named(name)
    folder.mkdir(parents=True, exist_ok=True)
    records = Records(folder / RECORDS)
    tables = []
    for experiment in experiments:
        _do_missing_runs(
            experiment, settings, records, folder, workers, not console.quiet
        )
        tables += report(experiment, settings, records, folder, console)
    return tables


def _do_missing_runs(
    experiment: Experiment,
    settings: Settings,
    records: Records,
    folder: Path,
    workers: int,
    show_progress: bool,
) -> None:
    """Does the runs that are not recorded, after training their networks."""
    name, host = experiment.name, settings.host
    runs = list(experiment.runs(settings))
    missing = [run for run in runs if records.find(name, run.labels, host) is None]
    if not missing:
        return
    # Fail here, not in every process, if the data cannot be read or downloaded.
    load_pictures(settings.data)
    store = NetworkStore(settings, folder)
    # The first run that needs each network that is not stored yet.
    untrained: dict[Training, Run] = {}
    for run in missing:
        if run.network is not None and not store.has(run.network):
            untrained.setdefault(run.network, run)

    for task, plural, chosen, total in (
        (TRAIN, "networks", untrained.values(), len(untrained)),
        (RUN, "runs", missing, len(runs)),
    ):
        requests = [
            {"experiment": name, "task": task, "labels": run.labels} for run in chosen
        ]
        # Never start more workers than runs.
        replies = do_all(requests, settings, folder, min(workers, len(requests)) or 1)
        done = total - len(requests)
        with progress_bar(f"{name}: {plural}", show_progress) as show:
            show(done, total)
            for request, reply in replies:
                if task == RUN:
                    measured, seconds = reply["figures"], reply["seconds"]
                    records.add(name, request["labels"], host, measured, seconds)
                done += 1
                show(done, total)


def recorded_rows(
    experiment: Experiment, settings: Settings, records: Records
) -> list[Row]:
    """Returns the rows of the finished runs of an experiment, in the order of runs."""
    rows = (
        records.find(experiment.name, run.labels, settings.host)
        for run in experiment.runs(settings)
    )
    return [row for row in rows if row is not None]


def report(
    experiment: Experiment,
    settings: Settings,
    records: Records,
    folder: Path,
    console: Console,
) -> list[ResultTable]:
    """Prints an experiment's tables, and writes them and its plots."""
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
    for name, figure in experiment.figures(rows).items():
        figure.savefig(folder / f"{experiment.name}-{name}.png")
    return tables
