"""Searches the files of a scan on a Dask cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.examiner import Examiner, ScanSettings
from keras_wm.scanning.packed_settings import PackedSettings
from keras_wm.scanning.scan_report import FileResult

# Number of files in a task. The scheduler needs about a millisecond per task, which is
# then negligible.
_FILES_PER_TASK = 16
# Number of tasks per thread that are submitted ahead, so that no thread has to wait.
_TASKS_PER_THREAD = 3
_thread = threading.local()


def examine_on_cluster(
    settings: ScanSettings, client: Any, candidates: Sequence[Candidate]
) -> Iterator[FileResult]:
    """Searches files on a Dask cluster, and yields each result when it is finished.

    The keys are sent to the workers of the cluster, which must be able to reach the
    files by their paths or URLs.
    """
    from distributed import as_completed

    packed = PackedSettings(settings)
    submit = partial(client.submit, _examine, settings=packed, pure=False)
    remaining = iter(candidates)
    batches = iter(lambda: list(islice(remaining, _FILES_PER_TASK)), [])
    threads = sum(client.nthreads().values()) or 1
    first = islice(batches, _TASKS_PER_THREAD * threads)
    running: Any = as_completed(map(submit, first))  # type: ignore[no-untyped-call]
    for finished in running:
        yield from finished.result()
        for batch in islice(batches, 1):
            running.add(submit(batch))


def _examine(batch: list[Candidate], settings: PackedSettings) -> list[FileResult]:
    """Searches a batch of files on a worker.

    Each thread keeps its examiner, and with it the sandbox, for the next batch.
    """
    scan = settings.settings.header()
    if getattr(_thread, "scan", None) != scan:
        if hasattr(_thread, "examiner"):
            _thread.examiner.stop()
        _thread.examiner = Examiner(settings.settings)
        _thread.scan = scan
    return [_thread.examiner.examine(candidate) for candidate in batch]
