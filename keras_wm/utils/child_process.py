"""Processes of our own that answer questions over a pipe.

Not `multiprocessing`: it would import the user's main module again in each child, and
unpickle what the child says, which has to be safe even where the child is not.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

Message = dict[str, Any]
Answer = tuple[Message, memoryview]
Handler = Callable[[Message], Answer]

_LENGTHS = struct.Struct(">QQ")
_MOST_JSON_BYTES = 256 * 1024**2
_NOTHING = memoryview(b"")
_BOOT = (
    "import sys; module, *sys.path = sys.argv[1:]; "
    "from keras_wm.utils.child_process import serve; serve(module)"
)


class ChildDiedError(Exception):
    """A child that ended instead of answering; the message says how."""


class ChildProcess:
    """A Python process that runs one module's `make_handler`.

    Args:
        module: The name of a module with a function `make_handler(settings)`, which
            returns a function from a question to an answer.
        settings: What `make_handler` is called with; plain JSON values.
        environment: Environment variables to set, or with `None` to remove.
    """

    def __init__(
        self, module: str, settings: Message, environment: dict[str, str | None]
    ) -> None:
        changed = {**os.environ, **environment}
        home = str(Path(__file__).parents[2])
        # -P and no empty entry: the folder we are called in may hold what was
        # downloaded, and a numpy.py among it must not be imported.
        paths = [*filter(None, sys.path), home]
        self._process = subprocess.Popen(  # noqa: S603 (our own code)
            [sys.executable, "-P", "-c", _BOOT, module, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Nothing may wait in a buffer of ours, where a poll cannot see it.
            bufsize=0,
            env={name: value for name, value in changed.items() if value is not None},
            # An interrupt is for us alone; the child ends when its pipe does.
            start_new_session=True,
        )
        self._to_child = cast(BinaryIO, self._process.stdin)
        self._from_child = cast(BinaryIO, self._process.stdout)
        self._settings: Message | None = settings

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None and not self._to_child.closed

    @property
    def pid(self) -> int:
        """The number by which the operating system knows it."""
        return self._process.pid

    def ask(
        self, question: Message, seconds: float | None = None, most: int = 0
    ) -> Answer:
        """Asks one question and waits for its answer.

        Args:
            question: Plain JSON values.
            seconds: How long to wait, where the system can tell that a pipe is silent
                (not on Windows). `None` waits for ever.
            most: How many bytes may come with the answer.

        Returns:
            The answer, and the bytes that come with it.

        Raises:
            ChildDiedError: If the child ends or is ended instead of answering.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            if self._settings is not None:
                _send(self._to_child, self._settings)
                self._settings = None
            _send(self._to_child, question)
            return _receive(self._from_child, most, deadline)
        except TimeoutError as error:
            self.stop()
            raise ChildDiedError(f"no answer in {seconds:g} s") from error
        except (OSError, EOFError, ValueError) as error:
            self.stop()
            raise ChildDiedError(self._how_ended()) from error

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        for pipe in (self._to_child, self._from_child):
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    def _how_ended(self) -> str:
        status = self._process.returncode
        return signal.Signals(-status).name if status < 0 else f"status {status}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve(module: str) -> None:
    """What a child does: answers questions until its pipe is closed."""
    questions = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # Whatever a library prints must not get between the answers.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        answer = importlib.import_module(module).make_handler(_receive(questions)[0])
        while True:
            question, _ = _receive(questions)
            _send(answers, *answer(question))


def _send(pipe: BinaryIO, message: Message, data: memoryview = _NOTHING) -> None:
    text = json.dumps(message).encode()
    _write(pipe, _LENGTHS.pack(len(text), data.nbytes) + text)
    _write(pipe, data)


def _write(pipe: BinaryIO, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


def _receive(pipe: BinaryIO, most: int = 0, deadline: float | None = None) -> Answer:
    lengths = _exactly(pipe, _LENGTHS.size, deadline)
    text_bytes, data_bytes = _LENGTHS.unpack(lengths)
    if text_bytes > _MOST_JSON_BYTES or data_bytes > most:
        raise ValueError("the other end of the pipe sends more than it may.")
    message = json.loads(bytes(_exactly(pipe, text_bytes, deadline)))
    return message, _exactly(pipe, data_bytes, deadline)


def _exactly(pipe: BinaryIO, size: int, deadline: float | None) -> memoryview:
    data = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        if deadline is not None:
            _wait_for(pipe, deadline)
        count = pipe.readinto(data[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the other end of the pipe is gone.")
        filled += count
    return data


def _wait_for(pipe: BinaryIO, deadline: float) -> None:
    if sys.platform == "win32":
        return
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError
