"""Workers of a scan on a Dask cluster."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.examiner import Examiner, ScanSettings
from keras_wm.scanning.scan_report import FileResult
from keras_wm.scanning.worker_keys import PackedKeys

# The scheduler needs about a millisecond per task. With so many files in a task, that
# is negligible.
_FILES_PER_TASK = 16
# So many tasks are submitted per thread, so that no thread waits for the next one.
_TASKS_PER_THREAD = 3
_thread = threading.local()


class DaskWorkers:
    """Searches files on a Dask cluster, to whose workers it sends the keys.

    See `Workers`. The workers must be able to reach the files by their paths or URLs.

    Args:
        settings: Settings of the scan.
        client: A `distributed.Client`.
    """

    def __init__(self, settings: ScanSettings, client: Any) -> None:
        self._keys = PackedKeys(settings.keys)
        # Keys cannot be pickled with the other settings.
        self._settings = replace(settings, keys=())
        self._client = client

    def examine(self, candidates: Sequence[Candidate]) -> Iterator[FileResult]:
        """Yields the result of each file, in the order in which they are finished."""
        from distributed import as_completed

        remaining = iter(candidates)
        batches = iter(lambda: list(itertools.islice(remaining, _FILES_PER_TASK)), [])
        threads = sum(self._client.nthreads().values()) or 1
        first = itertools.islice(batches, _TASKS_PER_THREAD * threads)
        running: Any = as_completed(map(self._submit, first))  # type: ignore[no-untyped-call]
        for finished in running:
            yield from finished.result()
            for batch in itertools.islice(batches, 1):
                running.add(self._submit(batch))

    def _submit(self, batch: list[Candidate]) -> Any:
        return self._client.submit(
            _examine, batch, self._keys, self._settings, pure=False
        )


def _examine(
    batch: list[Candidate], keys: PackedKeys, settings: ScanSettings
) -> list[FileResult]:
    """Searches a batch of files on a worker.

    Each thread keeps its examiner, and with it the sandbox, for the next batch.
    """
    settings = replace(settings, keys=keys.keys)
    scan = settings.header()
    if getattr(_thread, "scan", None) != scan:
        if hasattr(_thread, "examiner"):
            _thread.examiner.stop()
        _thread.examiner = Examiner(settings)
        _thread.scan = scan
    return [_thread.examiner.examine(candidate) for candidate in batch]
