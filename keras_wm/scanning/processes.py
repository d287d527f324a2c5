"""A scan on the cores of this machine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from keras_wm.child_process import Answerer, ChildDiedError, ChildProcess, Message
from keras_wm.files import Limits
from keras_wm.key import WatermarkKey
from keras_wm.key_transit import pack, unpack
from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.examination import Examiner
from keras_wm.scanning.report import FileResult

_MODULE = "keras_wm.scanning.processes"
# One process a core is what makes a scan fast; threads of the linear algebra within
# each would only be in each other's way.
_ENVIRONMENT: dict[str, str | None] = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_DONE = object()


def examine_locally(
    candidates: Iterable[Candidate],
    keys: Sequence[WatermarkKey],
    limits: Limits,
    layer: str | None,
    workers: int,
) -> Iterator[FileResult]:
    """Searches files in processes of this machine.

    Args:
        candidates: The files.
        keys: What to look for.
        limits: What each file may ask of this machine.
        layer: The layer to look in, or `None` for all kernels.
        workers: How many processes. Each has a sandbox, one more process, which
            works while it waits.

    Yields:
        The results, as they come.
    """
    settings = {"keys": pack(keys), "limits": asdict(limits), "layer": layer}
    pool = _Pool(iter(candidates), settings, workers)
    try:
        yield from pool.results()
    finally:
        pool.stop()


class _Pool:
    """Threads that each hand candidates to a process of their own."""

    def __init__(
        self, candidates: Iterator[Candidate], settings: Message, workers: int
    ) -> None:
        self._candidates = candidates
        self._settings = settings
        self._lock = threading.Lock()
        self._results: queue.Queue[object] = queue.Queue()
        self._children: dict[int, ChildProcess] = {}
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, args=(index,), daemon=True)
            for index in range(workers)
        ]

    def results(self) -> Iterator[FileResult]:
        for thread in self._threads:
            thread.start()
        working = len(self._threads)
        while working:
            result = self._results.get()
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, FileResult):
                yield result
            else:
                working -= 1

    def stop(self) -> None:
        self._stopped = True
        for thread in self._threads:
            while thread.is_alive():
                self._stop_children()
                thread.join(0.1)
        self._stop_children()

    def _stop_children(self) -> None:
        for child in list(self._children.values()):
            child.stop()

    def _work(self, index: int) -> None:
        try:
            while (candidate := self._next()) is not None:
                self._results.put(self._examine(index, candidate))
            self._results.put(_DONE)
        # Whatever it is, the scan that waits for it has to hear of it.
        except BaseException as error:
            self._results.put(error)

    def _next(self) -> Candidate | None:
        with self._lock:
            return None if self._stopped else next(self._candidates, None)

    def _examine(self, index: int, candidate: Candidate) -> FileResult:
        child = self._children.get(index)
        if child is None or not child.alive:
            child = ChildProcess(_MODULE, self._settings, _ENVIRONMENT)
            self._children[index] = child
        try:
            answer, _ = child.ask(asdict(candidate))
        except ChildDiedError as error:
            return FileResult(
                candidate.path,
                error="ModelFileError",
                message=f"searching it ended its process ({error}): out of memory?",
                named=candidate.named,
            )
        return FileResult.from_dict(answer)


def answerer(settings: Message) -> Answerer:
    """What a process of the pool does."""
    examiner = Examiner(
        unpack(settings["keys"]), Limits(**settings["limits"]), settings["layer"]
    )

    def answer(question: Message) -> tuple[Message, memoryview]:
        candidate = Candidate(**{**question, "parts": tuple(question["parts"])})
        return examiner.examine(candidate).to_dict(), memoryview(b"")

    return answer
