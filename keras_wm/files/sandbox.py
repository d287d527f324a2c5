"""Reading model files in a process of its own, which can be lost.

HDF5's C code can be made to crash, to loop for ever or to ask for all memory. Here
that costs one error. And the process that opens the file holds no key, so that no
secret is in the memory that a file may corrupt. It is no jail: code that took it over
would have the user's rights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from keras_wm import errors
from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.contents import Kernel, ModelFile
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.utils.child_process import Answer, ChildDiedError, ChildProcess, Message
from keras_wm.utils.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ENVIRONMENT: dict[str, str | None] = {
    "KERAS_WM_PASSPHRASE": None,
    # HDF5 loads no native code, whatever filter a file asks for.
    "HDF5_PLUGIN_PRELOAD": "::",
    # Threads reserve address space, which the limit of memory counts.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
_MESSAGE_CHARS = 4000
_WIDEST = 8


class Sandbox:
    """A child process that reads model files for this one.

    It is started when it is first needed, serves one file after the other, and is
    started again after a file that it did not survive. One thread at a time may use it.

    Args:
        limits: What a file may ask of the machine: beside the usual, how much
            memory and time (`Limits.memory_bytes`, `cpu_seconds`, `wall_seconds`).

    Example:

    ```python
    with Sandbox() as sandbox, sandbox.open_model_file("odd.h5") as model_file:
        print([kernel.name for kernel in model_file.kernels])
    ```
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._child: ChildProcess | None = None
        self._opened = 0

    @contextmanager
    def open_model_file(self, path: str | os.PathLike[str]) -> Iterator[ModelFile]:
        """Opens a model file in the child; otherwise like `open_model_file`.

        Raises:
            UnsafeFileError: Also if the child crashes, or needs more memory or
                time than `Limits` allows.
        """
        path = os.fspath(path)
        child = self.start()
        listed, _ = self._ask(child, {"open": path}, path)
        self._opened += 1
        weights = [
            self._weight(child, path, index, described)
            for index, described in enumerate(listed["weights"])
        ]

        opened = self._opened

        def config() -> Any:
            self._check_open(opened, path)
            return self._ask(child, {"config": True}, path)[0]["config"]

        try:
            yield ModelFile(str(listed["format"]), weights, config, path=path)
        finally:
            self._opened += 1

    def start(self) -> ChildProcess:
        """Starts the child if there is none, to have it ready when it is needed."""
        if self._child is None or not self._child.alive:
            self.stop()
            self._child = ChildProcess(
                "keras_wm.files.sandbox_child", asdict(self._limits), _ENVIRONMENT
            )
        return self._child

    def stop(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _weight(
        self, child: ChildProcess, path: str, index: int, described: Message
    ) -> Kernel:
        shape = tuple(int(axis) for axis in described.pop("shape"))
        opened = self._opened

        def read() -> NDArray[np.floating]:
            self._check_open(opened, path)
            return self._read(child, path, index, shape)

        texts = {name: str(value) for name, value in described.items()}
        return Kernel(shape=shape, read=read, **texts)

    def _check_open(self, opened: int, path: str) -> None:
        if opened != self._opened:
            raise ModelFileError(
                f"{printable(path, 1000)}: a kernel can be read only while its "
                "file is open."
            )

    def _read(
        self, child: ChildProcess, path: str, index: int, shape: tuple[int, ...]
    ) -> NDArray[np.floating]:
        import numpy as np  # Late: it takes the time in which the child starts.

        most = _WIDEST * min(math.prod(shape), self._limits.array_bytes)
        answer, data = self._ask(child, {"read": index}, path, most)
        dtype = np.dtype("f8" if answer["dtype"] == "float64" else "f4")
        return np.frombuffer(data, dtype).reshape(shape)

    def _ask(
        self, child: ChildProcess, question: Message, path: str, most: int = 0
    ) -> Answer:
        try:
            answer, data = child.ask(question, self._limits.wall_seconds, most)
        except ChildDiedError as error:
            reason = _reason(str(error), self._limits)
            raise UnsafeFileError(f"{printable(path, 1000)}: {reason}") from None
        if "error" in answer:
            raise _error(answer)
        return answer, data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _error(answer: Message) -> ModelFileError:
    kind: Any = getattr(errors, str(answer["error"]), ModelFileError)
    return kind(printable(str(answer["message"]), _MESSAGE_CHARS))  # type: ignore[no-any-return]


def _reason(how_ended: str, limits: Limits) -> str:
    if how_ended == "SIGXCPU":
        return (
            f"reading it takes more than Limits.cpu_seconds={limits.cpu_seconds} of "
            "processor time. A damaged or hostile file can make HDF5 loop for ever."
        )
    if how_ended.startswith("no answer"):
        return (
            f"reading it takes longer than Limits.wall_seconds={limits.wall_seconds}. "
            "Is its server still sending?"
        )
    return (
        f"reading it crashed the process that read it ({how_ended}). "
        "The file is damaged or hostile: do not use it."
    )
