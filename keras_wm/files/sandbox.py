"""Reading model files in a child process that is allowed to crash.

A hostile file can make HDF5's C code crash, loop endlessly or use up all memory. In a
child process, this costs a single error. In addition, the process that opens the file
holds no key, so the file cannot corrupt memory that contains a secret. This is not a
jail: code that took over the child would have the user's rights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from keras_wm import errors
from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.contents import Kernel, ModelFile, Stored
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.utils.child_process import Answer, ChildDiedError, ChildProcess, Message
from keras_wm.utils.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ENVIRONMENT: dict[str, str | None] = {
    "KERAS_WM_PASSPHRASE": None,
    # Keeps HDF5 from loading native plug-ins, whatever filter a file asks for.
    "HDF5_PLUGIN_PRELOAD": "::",
    # Every thread and every arena of malloc reserves address space, which counts
    # towards the memory limit.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
_MESSAGE_CHARS = 4000
_WIDEST_BYTES = 8


class Sandbox:
    """A child process that reads model files for this process.

    The child is started when it is first needed, reads one file after another, and is
    restarted after a file that crashed it. Only one thread at a time can use it.

    Args:
        limits: Limits on the resources that a file can use. A sandbox also enforces
            `Limits.memory_bytes`, `cpu_seconds` and `wall_seconds`.

    Example:

    ```python
    with Sandbox() as sandbox, sandbox.open_model_file("odd.h5") as model_file:
        print([kernel.name for kernel in model_file.kernels])
    ```
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or DEFAULT_LIMITS
        self._child: ChildProcess | None = None
        # Changes when a file is opened or closed. A kernel remembers the value with
        # which it was listed, because the child knows only the file opened last.
        self._generation = 0

    @contextmanager
    def open_model_file(self, path: str | os.PathLike[str]) -> Iterator[ModelFile]:
        """Opens a model file in the child; otherwise like `open_model_file`.

        Args:
            path: Path or URL of the file.

        Yields:
            The file, whose kernels can be read until the context exits.

        Raises:
            ModelFileError: If the file cannot be read.
            UnsafeFileError: If the file exceeds a limit or crashes the child.
        """
        path = os.fspath(path)
        child = self.start()
        listing, _ = self._ask(child, {"open": path}, path)
        self._generation += 1
        generation = self._generation

        def ask(question: Message, max_bytes: int = 0) -> Answer:
            if generation != self._generation:
                raise ModelFileError(
                    f"{printable(path, 1000)}: a kernel can be read only while its "
                    "file is open."
                )
            return self._ask(child, question, path, max_bytes)

        weights = [
            self._weight(ask, index, description)
            for index, description in enumerate(listing["weights"])
        ]

        def config() -> Any:
            return ask({"config": True})[0]["config"]

        def arrays() -> list[Stored]:
            descriptions = ask({"arrays": True})[0]["arrays"]
            return [
                self._array(ask, index, description)
                for index, description in enumerate(descriptions)
            ]

        try:
            yield ModelFile(
                str(listing["format"]),
                weights,
                config,
                arrays,
                bool(listing["has_config"]),
                tuple(map(str, listing["custom_classes"])),
                path=path,
            )
        finally:
            self._generation += 1

    def start(self) -> ChildProcess:
        """Starts the child ahead of its first use, unless it is already running.

        Returns:
            The child.
        """
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
        self, ask: Callable[..., Answer], index: int, description: Message
    ) -> Kernel:
        shape = tuple(int(axis) for axis in description.pop("shape"))
        texts = {name: str(value) for name, value in description.items()}
        read = self._reader(ask, {"read": index}, shape)
        return Kernel(shape=shape, read=read, **texts)

    def _array(
        self, ask: Callable[..., Answer], index: int, description: Message
    ) -> Stored:
        shape = tuple(int(axis) for axis in description["shape"])
        read = self._reader(ask, {"read_array": index}, shape)
        return Stored(str(description["path"]), shape, str(description["dtype"]), read)

    def _reader(
        self, ask: Callable[..., Answer], question: Message, shape: tuple[int, ...]
    ) -> Callable[[], NDArray[np.floating]]:
        def read() -> NDArray[np.floating]:
            # Imported late, so that the child starts while NumPy is imported here.
            import numpy as np

            max_bytes = _WIDEST_BYTES * min(math.prod(shape), self._limits.array_bytes)
            answer, data = ask(question, max_bytes)
            dtype = np.dtype("f8" if answer["dtype"] == "float64" else "f4")
            return np.frombuffer(data, dtype).reshape(shape)

        return read

    def _ask(
        self, child: ChildProcess, question: Message, path: str, max_bytes: int = 0
    ) -> Answer:
        try:
            answer, data = child.ask(question, self._limits.wall_seconds, max_bytes)
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
    """Returns the child's error; the child is not trusted with its type or text."""
    kind: Any = getattr(errors, str(answer["error"]), ModelFileError)
    return kind(printable(str(answer["message"]), _MESSAGE_CHARS))  # type: ignore[no-any-return]


def _reason(how_ended: str, limits: Limits) -> str:
    """Returns an explanation of how the child ended, as part of an error message."""
    if how_ended == "SIGXCPU":
        return (
            f"reading it takes more than Limits.cpu_seconds={limits.cpu_seconds} of "
            "processor time. A damaged or hostile file can make HDF5 loop endlessly."
        )
    if how_ended.startswith("no answer"):
        return (
            f"reading it takes longer than Limits.wall_seconds={limits.wall_seconds}. "
            "Check that its server is still sending."
        )
    return (
        f"reading it crashed the process that read it ({how_ended}). "
        "The file is damaged or hostile: do not use it."
    )
