"""Training networks and doing runs, in this process or in several others."""

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

# The tasks of a request: train the network that a run needs, or do the run.
TRAIN, RUN = "train", "run"
_MODULE = "keras_wm.research.experiments.worker"
# One process can take 2 GB of memory.
_MAX_DEFAULT_WORKERS = 4
_PARENT_POLL_SECONDS = 1.0


def default_workers() -> int:
    """Returns the number of processes: one per core, at most 4, or 1 with a GPU."""
    on_cpu = "cpu" in str(ops.zeros(1).device).lower()
    return min(os.cpu_count() or 1, _MAX_DEFAULT_WORKERS) if on_cpu else 1


def do_request(request: Message, store: NetworkStore) -> Message:
    """Does a run, or trains and stores the network that it needs.

    Args:
        request: `"experiment"`: the experiment's name. `"labels"`: the labels of the
            run. `"task"`: `RUN` or `TRAIN`.
        store: Networks of the study.

    Returns:
        For a run, its measurements as `"figures"` and its duration in `"seconds"`;
        otherwise empty.
    """
    begin = time.perf_counter()
    experiment = EXPERIMENTS[request["experiment"]]
    run = experiment.run_with(store.settings, request["labels"])
    try:
        if request["task"] == RUN:
            measured = run.perform(store)
            return {"figures": measured, "seconds": time.perf_counter() - begin}
        if run.network is not None:
            store.network(run.network)
        return {}
    finally:
        store.clean()


def do_all(
    requests: Iterable[Message], settings: Settings, folder: Path, workers: int
) -> Iterator[tuple[Message, Message]]:
    """Yields every request with its reply, in the order in which they finish.

    A single worker is this process. Raises `RuntimeError` if another process fails.
    """
    if workers == 1:
        store = NetworkStore(settings, folder)
        for request in requests:
            yield request, do_request(request, store)
        return
    study = {"settings": asdict(settings), "folder": str(folder.absolute())}
    replies = ask_all(requests, _MODULE, study, _environment(workers), workers)
    for request, reply in replies:
        if isinstance(reply, ChildDiedError):
            raise RuntimeError(
                f"A worker process died during {request} ({reply}). It may have run "
                "out of memory. Finished runs are recorded: try again with fewer "
                "workers."
            )
        if "failed" in reply:
            raise RuntimeError(f"{request} failed:\n{reply['failed']}")
        yield request, reply


def _environment(workers: int) -> dict[str, str | None]:
    """Returns environment variables that divide the cores among the processes.

    Small networks gain little from a second thread.
    """
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return {
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        # By default the first process reserves all memory of a GPU.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def make_handler(settings: Message) -> Handler:
    """Returns the function that answers requests in a worker process."""
    threading.Thread(
        target=_exit_after_parent, args=(os.getppid(),), daemon=True
    ).start()
    study = settings["settings"]
    for name in ("marks", "families"):
        # JSON turns tuples into lists.
        study[name] = study[name] and tuple(study[name])
    store = NetworkStore(Settings(**study), Path(settings["folder"]))

    def handle(request: Message) -> Answer:
        try:
            return do_request(request, store), NO_DATA
        # Report any error to the parent process, which waits for a reply.
        except Exception:
            return {"failed": traceback.format_exc()}, NO_DATA

    return handle


def _exit_after_parent(parent: int) -> None:
    """Ends this process soon after its parent is killed: training can take hours."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    os._exit(1)
