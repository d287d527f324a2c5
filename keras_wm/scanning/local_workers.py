"""Workers of a scan on the cores of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from keras_wm.files import Limits
from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.examiner import Examiner, ScanSettings
from keras_wm.scanning.scan_report import FileResult
from keras_wm.scanning.worker_keys import pack, unpack
from keras_wm.utils.child_pool import ask_all
from keras_wm.utils.child_process import (
    NO_DATA,
    Answer,
    ChildDiedError,
    Handler,
    Message,
)

_MODULE = "keras_wm.scanning.local_workers"
# There is one process per core already. Threads of the linear algebra in each process
# would compete with the other processes.
_ENVIRONMENT: dict[str, str | None] = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class LocalWorkers:
    """Searches files in child processes; see `Workers`.

    Args:
        settings: Settings of the scan.
        count: Number of processes. Each has a sandbox, a further process, which works
            while the first one waits.
    """

    def __init__(self, settings: ScanSettings, count: int) -> None:
        self._settings = {
            "keys": pack(settings.keys),
            "layer": settings.layer,
            "limits": asdict(settings.limits),
        }
        self._count = count

    def examine(self, candidates: Sequence[Candidate]) -> Iterator[FileResult]:
        """Yields the result of each file, in the order in which they are finished."""
        questions = (asdict(candidate) for candidate in candidates)
        count = min(self._count, len(candidates))
        replies = ask_all(questions, _MODULE, self._settings, _ENVIRONMENT, count)
        for question, answer in replies:
            if isinstance(answer, ChildDiedError):
                yield FileResult(
                    question["path"],
                    error="ModelFileError",
                    message=f"the process that searched it ended ({answer}), perhaps "
                    "because memory ran out",
                    named=question["named"],
                )
            else:
                yield FileResult.from_dict(answer)


def make_handler(settings: Message) -> Handler:
    """Returns the function that answers the questions of the parent process."""
    examiner = Examiner(
        ScanSettings(
            unpack(settings["keys"]), settings["layer"], Limits(**settings["limits"])
        )
    )

    def answer(question: Message) -> Answer:
        candidate = Candidate(**{**question, "parts": tuple(question["parts"])})
        return examiner.examine(candidate).to_dict(), NO_DATA

    return answer
