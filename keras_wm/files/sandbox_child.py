"""The child's side of a `Sandbox`: opens files within limits and sends their arrays."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from keras_wm.errors import ModelFileError
from keras_wm.files.contents import Kernel, ModelFile, Stored
from keras_wm.files.limits import Limits
from keras_wm.files.model_file import open_model_file
from keras_wm.utils.child_process import NO_DATA, Answer, Handler, Message

if sys.platform != "win32":
    import resource

# Memory for an array, in multiples of its size in double precision. It has to hold the
# stored array, its converted copies and the bytes that are sent.
_COPIES = 4
# Time for reading an array at this rate is added to `Limits.cpu_seconds`.
_SLOWEST_BYTES_PER_SECOND = 20e6


def make_handler(settings: Message) -> Handler:
    """Returns the function that answers a `Sandbox`.

    Args:
        settings: Fields of the `Limits`.
    """
    return _Reader(Limits(**settings)).answer


class _Reader:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._file: ModelFile
        self._arrays: list[Stored] = []
        self._open = ExitStack()
        self._bounds = _Bounds(limits)

    def answer(self, question: Message) -> Answer:
        try:
            if "open" in question:
                return self._list(question["open"])
            if "config" in question:
                return self._read_config()
            if "arrays" in question:
                return self._list_arrays()
            if "read_array" in question:
                return self._read(self._arrays[question["read_array"]])
            return self._read(self._file.weights[question["read"]])
        except ModelFileError as error:
            return {"error": type(error).__name__, "message": str(error)}, NO_DATA

    def _list(self, path: str) -> Answer:
        self._open.close()
        with self._bounds.enforced():
            self._file = self._open.enter_context(open_model_file(path, self._limits))
        return {
            "format": self._file.format,
            "weights": _descriptions(self._file.weights),
            "has_config": self._file.has_config,
            "custom_classes": self._file.custom_classes,
        }, NO_DATA

    def _list_arrays(self) -> Answer:
        with self._bounds.enforced():
            self._arrays = self._file.arrays()
        return {"arrays": _descriptions(self._arrays)}, NO_DATA

    def _read_config(self) -> Answer:
        with self._bounds.enforced():
            config = self._file.config()
            try:
                json.dumps(config)
            # json can parse deeper nesting than it can write.
            except RecursionError:
                config = None
        return {"config": config}, NO_DATA

    def _read(self, weight: Kernel | Stored) -> Answer:
        # The reader itself rejects an array above `Limits.array_bytes`. This minimum
        # only keeps such an array's shape from lifting the bounds.
        size = min(8 * math.prod(weight.shape), 2 * self._limits.array_bytes)
        with self._bounds.enforced(size):
            values = np.ascontiguousarray(weight.read())
        if values.dtype not in (np.float32, np.float64):
            values = values.astype(np.float64)
        return {"dtype": values.dtype.name}, values.data.cast("B")


def _descriptions(arrays: Sequence[Kernel | Stored]) -> list[Message]:
    """Returns all fields of weights or arrays that are plain values."""
    return [
        {name: value for name, value in vars(array).items() if name != "read"}
        for array in arrays
    ]


class _Bounds:
    """Limits of memory and processor time that the operating system enforces."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        if sys.platform != "win32":
            # A core dump would write the file's contents to disk.
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            # The address space in use at this point holds imported libraries and does
            # not count. Only Linux reports it, so that only Linux limits memory.
            statm = Path("/proc/self/statm")
            pages = int(statm.read_text().split()[0]) if statm.exists() else 0
            self._imported_bytes = pages * os.sysconf("SC_PAGE_SIZE")

    @contextmanager
    def enforced(self, array_bytes: int = 0) -> Iterator[None]:
        """Limits memory and time within a context; an array's size is added to both."""
        if sys.platform == "win32":
            yield
            return
        limits = self._limits
        if self._imported_bytes:
            memory = limits.memory_bytes + _COPIES * array_bytes
            _set_soft_limit(resource.RLIMIT_AS, self._imported_bytes + memory)
        # The operating system counts from the start of the process.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        seconds = limits.cpu_seconds + array_bytes / _SLOWEST_BYTES_PER_SECOND
        _set_soft_limit(
            resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime + seconds)
        )
        try:
            yield
        finally:
            if self._imported_bytes:
                _set_soft_limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)


def _set_soft_limit(kind: int, soft: int) -> None:
    _, hard = resource.getrlimit(kind)
    # A soft limit cannot exceed a hard limit, which the user may have lowered.
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(kind, (soft, hard))
