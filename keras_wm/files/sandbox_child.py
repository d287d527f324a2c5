"""The child's side of a `Sandbox`: opens files, within limits, and hands out arrays."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_wm.errors import ModelFileError
from keras_wm.files.contents import Kernel, no_config
from keras_wm.files.limits import Limits
from keras_wm.files.model_file import open_model_file
from keras_wm.utils.child_process import Answer, Handler, Message

_NOTHING = memoryview(b"")
# Widening a half to a double, beside the original and what is sent.
_COPIES = 4
_SLOWEST_BYTES_A_SECOND = 20e6


def make_handler(settings: Message) -> Handler:
    """Starts to answer the questions of a `Sandbox`."""
    return _Reader(Limits(**settings)).answer


class _Reader:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._weights: list[Kernel] = []
        self._config: Callable[[], Any] = no_config
        self._open = ExitStack()
        self._bounds = _Bounds(limits)

    def answer(self, question: Message) -> Answer:
        try:
            if "open" in question:
                return self._list(question["open"])
            if "config" in question:
                return self._read_config()
            return self._read(self._weights[question["read"]])
        except ModelFileError as error:
            return {"error": type(error).__name__, "message": str(error)}, _NOTHING

    def _list(self, path: str) -> Answer:
        self._open.close()
        with self._bounds.enforced():
            model_file = self._open.enter_context(open_model_file(path, self._limits))
        self._weights, self._config = model_file.weights, model_file.config
        described = [
            {
                "layer": weight.layer,
                "variable": weight.variable,
                "path": weight.path,
                "shape": weight.shape,
                "dtype": weight.dtype,
                "note": weight.note,
            }
            for weight in self._weights
        ]
        return {"format": model_file.format, "weights": described}, _NOTHING

    def _read_config(self) -> Answer:
        with self._bounds.enforced():
            config = self._config()
            try:
                json.dumps(config)
            except RecursionError:  # Nested so deep that it can be read, but not sent.
                config = None
        return {"config": config}, _NOTHING

    def _read(self, weight: Kernel) -> Answer:
        # What is larger than allowed is refused by the reading itself.
        size = min(8 * math.prod(weight.shape), 2 * self._limits.array_bytes)
        with self._bounds.enforced(size):
            values = np.ascontiguousarray(weight.read())
        if values.dtype not in (np.float32, np.float64):
            values = values.astype(np.float64)
        return {"dtype": values.dtype.name}, values.data.cast("B")


class _Bounds:
    """What the kernel of the operating system enforces, where it can."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        if sys.platform != "win32":
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            # What is imported by now does not count. Elsewhere than on Linux the
            # address space cannot be told, nor limited.
            statm = Path("/proc/self/statm")
            pages = int(statm.read_text().split()[0]) if statm.exists() else 0
            self._imported = pages * os.sysconf("SC_PAGE_SIZE")

    @contextmanager
    def enforced(self, array_bytes: int = 0) -> Iterator[None]:
        """Bounds memory and processor time, with room for an array of that size."""
        if sys.platform == "win32":
            yield
            return
        import resource

        limits = self._limits
        if self._imported:
            memory = limits.memory_bytes + _COPIES * array_bytes
            _set_soft(resource.RLIMIT_AS, self._imported + memory)
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = limits.cpu_seconds + array_bytes / _SLOWEST_BYTES_A_SECOND
        _set_soft(
            resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds)
        )
        try:
            yield
        finally:
            if self._imported:
                _set_soft(resource.RLIMIT_AS, resource.RLIM_INFINITY)


def _set_soft(which: int, soft: int) -> None:
    import resource

    _, hard = resource.getrlimit(which)
    # The user may have set a lower one.
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(which, (soft, hard))
