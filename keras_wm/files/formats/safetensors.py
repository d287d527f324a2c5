"""A safetensors file as a source of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from keras_wm.files.contents import Contents, Kernel, no_config
from keras_wm.files.formats.axis_order import readings
from keras_wm.files.formats.safetensors_header import has_header, read_header
from keras_wm.files.kernels.layer_weights import weights_of_layer
from keras_wm.files.limits import Limits
from keras_wm.files.storage.raw_array import RawArray
from keras_wm.files.storage.source import Source

_SEPARATORS = "./"


def recognise(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """The weights of a safetensors file, if it is one; see `hdf5_file.recognise`."""
    if not has_header(source):
        return None
    return Contents(
        "safetensors", weights_of_safetensors(read_header(source), source.limits)
    )


def weights_of_safetensors(arrays: Sequence[RawArray], limits: Limits) -> list[Kernel]:
    """The weights among the arrays of a file, each in every order of its axes."""
    layers: dict[str, dict[str, RawArray]] = {}
    for array in arrays:
        # `"encoder.c1.weight"` is the variable `"weight"` of the layer `"encoder.c1"`.
        variable = array.path[max(map(array.path.rfind, _SEPARATORS)) + 1 :]
        layer = array.path.removesuffix(variable)
        layers.setdefault(layer, {})[variable] = array
    return [
        reading
        for layer, stored in layers.items()
        for weight in weights_of_layer(layer[:-1], stored, limits=limits)
        for reading in readings(weight)
    ]
