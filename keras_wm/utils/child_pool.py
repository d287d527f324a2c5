"""Distributing many questions over several child processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from keras_wm.utils.child_process import Answer, ChildDiedError, ChildProcess, Message


def ask_all(
    questions: Iterable[Message],
    module: str,
    settings: Message,
    environment: dict[str, str | None],
    workers: int,
) -> Iterator[tuple[Message, Message | ChildDiedError]]:
    """Sends every question once, to the first process that is free.

    A process that dies is replaced for the next question.

    Args:
        questions: Plain JSON values. They are taken one by one, as processes become
            free.
        module: Name of a module with a function `make_handler`; see `ChildProcess`.
        settings: Argument of the module's `make_handler`.
        environment: Environment variables to set, or to remove if `None`.
        workers: Number of processes.

    Yields:
        Each question with its answer, or with the error of the process that died, in
        the order of the answers.
    """
    questions = iter(questions)
    children: set[ChildProcess] = set()
    idle: list[ChildProcess] = []
    asked: dict[Future[Answer], tuple[ChildProcess, Message]] = {}
    replies: list[tuple[Message, Message | ChildDiedError]] = []
    # Each thread waits for the answer of one process.
    with ThreadPoolExecutor(max(1, workers)) as threads:
        try:
            while True:
                for question in islice(questions, workers - len(asked)):
                    idle = [child for child in idle if child.alive]
                    if not idle:
                        idle.append(ChildProcess(module, settings, environment))
                    child = idle.pop()
                    children.add(child)
                    asked[threads.submit(child.ask, question)] = child, question
                # Replies are yielded only now, so that the processes work meanwhile.
                yield from replies
                if not asked:
                    return
                done, _ = wait(asked, return_when=FIRST_COMPLETED)
                replies = []
                for future in done:
                    child, question = asked.pop(future)
                    idle.append(child)
                    replies.append((question, _answer(future)))
        finally:
            # A thread returns when its process has ended.
            for child in children:
                child.stop()


def _answer(future: Future[Answer]) -> Message | ChildDiedError:
    error = future.exception()
    return error if isinstance(error, ChildDiedError) else future.result()[0]
