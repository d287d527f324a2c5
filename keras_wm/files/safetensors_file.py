"""A safetensors file as a source of kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from keras_wm.files.axis_order import readings
from keras_wm.files.contents import Contents
from keras_wm.files.hdf5_file import no_config
from keras_wm.files.kernel import Kernel
from keras_wm.files.plain_array import PlainArray
from keras_wm.files.safetensors_header import has_header, read_header
from keras_wm.files.source import Source

_SEPARATORS = "./"


def recognise(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """The kernels of a safetensors file, if it is one; see `hdf5_file.recognise`."""
    if not has_header(source):
        return None
    return Contents("safetensors", kernels_of_safetensors(read_header(source)))


def kernels_of_safetensors(arrays: Sequence[PlainArray]) -> list[Kernel]:
    """The kernels among the arrays of a file, each in every order of its axes."""
    return [
        reading
        for array in arrays
        if array.may_be_kernel
        for reading in readings(array.kernel(*_layer_and_variable(array.path)))
    ]


def _layer_and_variable(name: str) -> tuple[str, str]:
    """`"encoder.c1.weight"` is the variable `"weight"` of the layer `"encoder.c1"`."""
    end_of_layer = max(map(name.rfind, _SEPARATORS))
    return name[: max(end_of_layer, 0)], name[end_of_layer + 1 :]
