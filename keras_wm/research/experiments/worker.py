"""What trains networks and does runs: this process, or several of their own."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from keras import ops

from keras_wm.research.experiments.catalogue import EXPERIMENTS
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.settings import Settings
from keras_wm.utils.child_pool import ask_all
from keras_wm.utils.child_process import (
    NO_DATA,
    Answer,
    ChildDiedError,
    Handler,
    Message,
)

_MODULE = "keras_wm.research.experiments.worker"
# A process takes up to 2 GB.
_MOST_USUAL = 4
_SECONDS_BETWEEN_LOOKS = 1.0


def usual_workers() -> int:
    """How many processes train best: one for each core, but one with a GPU."""
    on_cpu = "cpu" in str(ops.zeros(1).device).lower()
    return min(os.cpu_count() or 1, _MOST_USUAL) if on_cpu else 1


class Worker:
    """Does what it is asked for.

    Args:
        settings: Of the study.
        folder: Of the study.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._store = NetworkStore(settings, folder)

    def answer(self, question: Message) -> Message:
        """Does a run, or trains a network that runs need.

        Args:
            question: The name of an `"experiment"`, and the number of a `"network"`
                in `Experiment.networks` or of a `"run"` in `Experiment.runs`.

        Returns:
            Of a run, its `"figures"` and the `"seconds"` that it took.
        """
        begin = time.perf_counter()
        experiment = EXPERIMENTS[question["experiment"]]
        try:
            if "network" in question:
                networks = experiment.networks(self._settings)
                self._store.network(networks[question["network"]])
                return {}
            run = list(experiment.runs(self._settings))[question["run"]]
            figures = run.perform(self._store)
            return {"figures": figures, "seconds": time.perf_counter() - begin}
        finally:
            self._store.clean()


def answers(
    questions: Iterable[Message], settings: Settings, folder: Path, workers: int
) -> Iterator[tuple[Message, Message]]:
    """Every question with its answer, as they come.

    Args:
        questions: As for `Worker.answer`.
        settings: Of the study.
        folder: Of the study.
        workers: How many processes answer; 1 is this one.

    Raises:
        RuntimeError: If one of the processes fails.
    """
    if workers == 1:
        worker = Worker(settings, folder)
        for question in questions:
            yield question, worker.answer(question)
        return
    described = {"settings": asdict(settings), "folder": str(folder.absolute())}
    for asked, answer in ask_all(
        questions, _MODULE, described, _environment(workers), workers
    ):
        if isinstance(answer, ChildDiedError):
            raise RuntimeError(
                f"A process ended while it was to do {asked} ({answer}): out of "
                "memory? What is finished is kept; try again with fewer workers."
            )
        if "failed" in answer:
            raise RuntimeError(f"{asked} failed:\n{answer['failed']}")
        yield asked, answer


def _environment(workers: int) -> dict[str, str | None]:
    """Shares out the cores: small networks gain little from two threads."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return {
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        # Nobody may take all of a GPU's memory at the start.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def make_handler(settings: Message) -> Handler:
    """What a process of the pool does."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    study = settings["settings"]
    for name in ("marks", "families"):
        # JSON has lists alone.
        study[name] = study[name] and tuple(study[name])
    worker = Worker(Settings(**study), Path(settings["folder"]))

    def answer(question: Message) -> Answer:
        try:
            return worker.answer(question), NO_DATA
        # Whatever it is, the study that waits has to hear of it.
        except Exception:
            return {"failed": traceback.format_exc()}, NO_DATA

    return answer


def _end_with(parent: int) -> None:
    """Ends this process when its parent was killed: a training may take hours."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
