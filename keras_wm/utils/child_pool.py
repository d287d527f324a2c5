"""Distributing many questions over several child processes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator

from keras_wm.utils.child_process import ChildDiedError, ChildProcess, Message

_DONE = object()
Reply = tuple[Message, Message | ChildDiedError]


def ask_all(
    questions: Iterable[Message],
    module: str,
    settings: Message,
    environment: dict[str, str | None],
    workers: int,
) -> Iterator[Reply]:
    """Asks every question once, each of the first process that is free.

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
    pool = _Pool(iter(questions), (module, settings, environment), workers)
    try:
        yield from pool.replies()
    finally:
        pool.stop()


class _Pool:
    """Threads that each pass questions to a process of their own."""

    def __init__(
        self,
        questions: Iterator[Message],
        child: tuple[str, Message, dict[str, str | None]],
        workers: int,
    ) -> None:
        self._questions = questions
        self._child = child
        self._lock = threading.Lock()
        self._replies: queue.Queue[object] = queue.Queue()
        self._children: dict[int, ChildProcess] = {}
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, args=(index,), daemon=True)
            for index in range(workers)
        ]

    def replies(self) -> Iterator[Reply]:
        for thread in self._threads:
            thread.start()
        working = len(self._threads)
        while working:
            reply = self._replies.get()
            if isinstance(reply, BaseException):
                raise reply
            if isinstance(reply, tuple):
                yield reply
            else:
                working -= 1

    def stop(self) -> None:
        self._stopped = True
        for thread in self._threads:
            # Repeated, because a thread may just have started another process.
            while thread.is_alive():
                self._stop_children()
                thread.join(0.1)
        self._stop_children()

    def _stop_children(self) -> None:
        for child in list(self._children.values()):
            child.stop()

    def _work(self, index: int) -> None:
        try:
            while (question := self._next()) is not None:
                self._replies.put((question, self._ask(index, question)))
            self._replies.put(_DONE)
        # Any exception has to reach the thread that waits for replies.
        except BaseException as error:
            self._replies.put(error)

    def _next(self) -> Message | None:
        # The lock is needed because `questions` may be a generator.
        with self._lock:
            return None if self._stopped else next(self._questions, None)

    def _ask(self, index: int, question: Message) -> Message | ChildDiedError:
        child = self._children.get(index)
        if child is None or not child.alive:
            child = self._children[index] = ChildProcess(*self._child)
        try:
            return child.ask(question)[0]
        except ChildDiedError as error:
            return error
