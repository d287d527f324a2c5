"""Child processes that answer questions over a pipe.

They replace `multiprocessing`, which imports the user's main module again in each
child, and which unpickles the child's answers. That would be unsafe here, because a
hostile file can take over a child that reads it.
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
from typing import Any, BinaryIO, cast

# JSON values of a question or an answer. An answer also has bytes, which can be empty.
Message = dict[str, Any]
Answer = tuple[Message, memoryview]
Handler = Callable[[Message], Answer]

NO_DATA = memoryview(b"")

# The lengths of the JSON text and of the bytes, which are sent before them.
_LENGTHS = struct.Struct(">QQ")
_MAX_JSON_BYTES = 256 * 1024**2
_BOOT = (
    "import sys; module, *sys.path = sys.argv[1:]; "
    "from keras_wm.utils.child_process import serve; serve(module)"
)


class ChildDiedError(Exception):
    """A child ended without an answer.

    The message is the signal or the exit status, or says that no answer came in time.
    """


class ChildProcess:
    """A Python process that answers questions with the handler of a module.

    Args:
        module: Name of a module with a function `make_handler(settings)`, which
            returns a function from a question to an answer.
        settings: Argument of `make_handler`; plain JSON values.
        environment: Environment variables to set, or to remove if `None`.
    """

    def __init__(
        self, module: str, settings: Message, environment: dict[str, str | None]
    ) -> None:
        variables = {**os.environ, **environment}
        # The child must not import modules from the working directory: it can hold
        # downloads, and a numpy.py among them would run. Python's option -P and
        # leaving out empty entries of sys.path prevent it.
        package_folder = str(Path(__file__).parents[2])
        paths = [*filter(None, sys.path), package_folder]
        self._process = subprocess.Popen(  # noqa: S603 (our own code)
            [sys.executable, "-P", "-c", _BOOT, module, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # poll() does not see data that wait in a buffer of this process.
            bufsize=0,
            env={name: value for name, value in variables.items() if value is not None},
            # Keyboard interrupts reach only this process. The child ends when its
            # pipe is closed.
            start_new_session=True,
        )
        self._to_child = cast(BinaryIO, self._process.stdin)
        self._from_child = cast(BinaryIO, self._process.stdout)
        self._unsent_settings: Message | None = settings

    @property
    def alive(self) -> bool:
        """True if the process is running and can be asked."""
        return self._process.poll() is None and not self._to_child.closed

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    def ask(
        self, question: Message, seconds: float | None = None, max_bytes: int = 0
    ) -> Answer:
        """Asks one question and waits for its answer.

        Args:
            question: Plain JSON values.
            seconds: Longest time to wait, or `None` for no limit. Windows cannot poll
                a pipe and ignores it.
            max_bytes: Largest accepted number of bytes that come with the answer.

        Returns:
            The answer, and the bytes that come with it.

        Raises:
            ChildDiedError: If the child ends, or has to be ended, without an answer.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            if self._unsent_settings is not None:
                _send(self._to_child, self._unsent_settings)
                self._unsent_settings = None
            _send(self._to_child, question)
            return _receive(self._from_child, max_bytes, deadline)
        except TimeoutError as error:
            self.stop()
            raise ChildDiedError(f"no answer in {seconds:g} s") from error
        # ValueError: the child's answer is malformed or too long.
        except (OSError, EOFError, ValueError) as error:
            self.stop()
            raise ChildDiedError(self._how_ended()) from error

    def stop(self) -> None:
        """Ends the process immediately."""
        self._process.kill()
        for pipe in (self._to_child, self._from_child):
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.wait()

    def _how_ended(self) -> str:
        status = self._process.returncode
        return signal.Signals(-status).name if status < 0 else f"status {status}"


def serve(module: str) -> None:
    """Answers questions in the child until the pipe is closed."""
    questions = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # Text that a library prints must not be mixed with the answers.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        handle = importlib.import_module(module).make_handler(_receive(questions)[0])
        while True:
            question, _ = _receive(questions)
            _send(answers, *handle(question))


def _send(pipe: BinaryIO, message: Message, data: memoryview = NO_DATA) -> None:
    text = json.dumps(message).encode()
    _write(pipe, _LENGTHS.pack(len(text), data.nbytes) + text)
    _write(pipe, data)


def _write(pipe: BinaryIO, data: bytes | memoryview) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[pipe.write(remaining) :]


def _receive(
    pipe: BinaryIO, max_bytes: int = 0, deadline: float | None = None
) -> Answer:
    lengths = _read_exactly(pipe, _LENGTHS.size, deadline)
    text_bytes, data_bytes = _LENGTHS.unpack(lengths)
    if text_bytes > _MAX_JSON_BYTES or data_bytes > max_bytes:
        raise ValueError("the message in the pipe is longer than allowed.")
    message = json.loads(bytes(_read_exactly(pipe, text_bytes, deadline)))
    return message, _read_exactly(pipe, data_bytes, deadline)


def _read_exactly(pipe: BinaryIO, size: int, deadline: float | None) -> memoryview:
    data = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        if deadline is not None:
            _wait_for(pipe, deadline)
        count = pipe.readinto(data[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the pipe is closed at the other end.")
        filled += count
    return data


def _wait_for(pipe: BinaryIO, deadline: float) -> None:
    if sys.platform == "win32":
        return
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
        raise TimeoutError
