"""A scan on the workers of a Dask cluster."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from keras_wm.files import Limits
from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.examiner import Examiner
from keras_wm.scanning.scan_report import FileResult
from keras_wm.scanning.worker_keys import PackedKeys
from keras_wm.scheme.key import WatermarkKey

# Enough that the scheduler's work, about a millisecond a task, does not count.
_FILES_A_TASK = 16
_TASKS_A_THREAD = 3
_here = threading.local()


def examine_on_cluster(
    candidates: Iterable[Candidate],
    keys: Sequence[WatermarkKey],
    limits: Limits,
    layer: str | None,
    client: Any,
) -> Iterator[FileResult]:
    """Searches files on a Dask cluster, to whose workers the keys are sent.

    Args:
        candidates: The files, by paths or URLs that the workers can reach.
        keys: What to look for.
        limits: What each file may ask of the machine that reads it.
        layer: The layer to look in, or `None` for all kernels.
        client: A `distributed.Client`.

    Yields:
        The results, as they come.
    """
    from distributed import as_completed

    task = (PackedKeys(keys), limits, layer)
    remaining = iter(candidates)
    batches = iter(lambda: list(itertools.islice(remaining, _FILES_A_TASK)), [])

    def submit(batch: list[Candidate]) -> Any:
        return client.submit(_examine, batch, *task, pure=False)

    threads = sum(client.nthreads().values()) or 1
    first = itertools.islice(batches, _TASKS_A_THREAD * threads)
    running: Any = as_completed(map(submit, first))  # type: ignore[no-untyped-call]
    for finished in running:
        yield from finished.result()
        for batch in itertools.islice(batches, 1):
            running.add(submit(batch))


def _examine(
    batch: list[Candidate], keys: PackedKeys, limits: Limits, layer: str | None
) -> list[FileResult]:
    """What a task does on a worker; its thread keeps its examiner for the next."""
    scan = ([key.commitment for key in keys.keys], limits, layer)
    if getattr(_here, "scan", None) != scan:
        if hasattr(_here, "examiner"):
            _here.examiner.stop()
        _here.examiner = Examiner(keys.keys, limits, layer)
        _here.scan = scan
    return [_here.examiner.examine(candidate) for candidate in batch]
