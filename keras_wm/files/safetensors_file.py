"""A safetensors file as a source of kernels."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.axis_order import readings
from keras_wm.files.contents import Contents
from keras_wm.files.float_codes import FLOATS, decode
from keras_wm.files.hdf5_file import no_config
from keras_wm.files.kernel import Kernel, printable
from keras_wm.files.safetensors_header import Entry, has_header, read_header
from keras_wm.files.source import Source

_MOST_AXES = 8
_SEPARATORS = "./"


def recognise(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """The kernels of a safetensors file, if it is one; see `hdf5_file.recognise`."""
    if not has_header(source):
        return None
    return Contents("safetensors", kernels_of_safetensors(source, read_header(source)))


def kernels_of_safetensors(source: Source, entries: list[Entry]) -> list[Kernel]:
    """The kernels among the arrays of a file, each in every order of its axes.

    Args:
        source: The open file.
        entries: Its header.

    Returns:
        The kernels: the arrays of floats with two axes or more.
    """
    return [
        reading
        for entry in entries
        if entry.dtype in FLOATS
        and 2 <= len(entry.shape) <= _MOST_AXES
        and 0 not in entry.shape
        for reading in readings(_as_stored(source, entry))
    ]


def _as_stored(source: Source, entry: Entry) -> Kernel:
    def read() -> NDArray[np.floating]:
        return _read(source, entry)

    end_of_layer = max(map(entry.name.rfind, _SEPARATORS))
    return Kernel(
        layer=printable(entry.name[: max(end_of_layer, 0)], most=1000),
        variable=printable(entry.name[end_of_layer + 1 :]),
        path=printable(entry.name, most=1000),
        shape=entry.shape,
        dtype=FLOATS[entry.dtype],
        read=read,
    )


def _read(source: Source, entry: Entry) -> NDArray[np.floating]:
    """Reads an array, in single precision at least."""
    if source.file.closed:
        raise ModelFileError("a kernel can be read only while its file is open.")
    size = max(entry.size, 4 * math.prod(entry.shape))
    if size > source.limits.array_bytes:
        raise UnsafeFileError(
            f"'{printable(entry.name)}' has {size:,} bytes, more than "
            f"Limits.array_bytes={source.limits.array_bytes:,}. "
            "Raise the limit if you trust the file."
        )
    source.file.seek(entry.start)
    data = source.file.read(entry.size)
    if len(data) < entry.size:
        raise ModelFileError("it became shorter while it was read.")
    return decode(data, entry.dtype).reshape(entry.shape)
