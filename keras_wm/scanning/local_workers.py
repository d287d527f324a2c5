"""A scan on the cores of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from keras_wm.files import Limits
from keras_wm.scanning.candidates import Candidate
from keras_wm.scanning.examiner import Examiner
from keras_wm.scanning.scan_report import FileResult
from keras_wm.scanning.worker_keys import pack, unpack
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.child_pool import ask_all
from keras_wm.utils.child_process import ChildDiedError, Handler, Message

_MODULE = "keras_wm.scanning.local_workers"
# One process a core is what makes a scan fast; threads of the linear algebra within
# each would only be in each other's way.
_ENVIRONMENT: dict[str, str | None] = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


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
    questions = (asdict(candidate) for candidate in candidates)
    for asked, answer in ask_all(questions, _MODULE, settings, _ENVIRONMENT, workers):
        if isinstance(answer, ChildDiedError):
            yield FileResult(
                asked["path"],
                error="ModelFileError",
                message=f"searching it ended its process ({answer}): out of memory?",
                named=asked["named"],
            )
        else:
            yield FileResult.from_dict(answer)


def make_handler(settings: Message) -> Handler:
    """What a process of the pool does."""
    examiner = Examiner(
        unpack(settings["keys"]), Limits(**settings["limits"]), settings["layer"]
    )

    def answer(question: Message) -> tuple[Message, memoryview]:
        candidate = Candidate(**{**question, "parts": tuple(question["parts"])})
        return examiner.examine(candidate).to_dict(), memoryview(b"")

    return answer
