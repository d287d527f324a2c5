"""Searches the files of a scan on the cores of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.examiner import Examiner, ScanSettings
from keras_wm.scanning.packed_settings import pack, unpack
from keras_wm.scanning.scan_report import FileResult
from keras_wm.utils.child_pool import ask_all
from keras_wm.utils.child_process import (
    NO_DATA,
    Answer,
    ChildDiedError,
    Handler,
    Message,
)

# There is one process per core already. Threads of the linear algebra in each process
# would compete with the other processes.
_ENVIRONMENT: dict[str, str | None] = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def examine_here(
    settings: ScanSettings, workers: int, candidates: Sequence[Candidate]
) -> Iterator[FileResult]:
    """Searches files in child processes, and yields each result when it is finished.

    Each of these processes has a sandbox, a further process, which works while the
    first one waits.
    """
    questions = (asdict(candidate) for candidate in candidates)
    workers = min(workers, len(candidates))
    replies = ask_all(questions, __name__, pack(settings), _ENVIRONMENT, workers)
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
    examiner = Examiner(unpack(settings))

    def answer(question: Message) -> Answer:
        candidate = Candidate(**{**question, "parts": tuple(question["parts"])})
        return examiner.examine(candidate).to_dict(), NO_DATA

    return answer
