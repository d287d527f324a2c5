"""Kernels in the HDF5 files of Keras 1 and 2, which Keras 3 still writes as `.h5`.

An array stands under its layer's name and then its own, which mostly starts with the
layer's name again: `conv/conv/kernel:0`. Where it does not, the layer is a model:
`encoder/dense/kernel:0`. Everything is told by the paths. The attributes that list
them are not read, because they may be arrays of texts of any length.
"""

from __future__ import annotations

import re

import h5py

from keras_wm.files.bounded_hdf5 import BoundedFile
from keras_wm.files.float_array import FloatArrays
from keras_wm.files.kernel import Kernel
from keras_wm.files.limits import Limits
from keras_wm.files.walk import has_child, open_child, walk

WHOLE_MODEL = "model_weights"


def is_legacy(file: h5py.File, limits: Limits) -> bool:
    """Whether an HDF5 file has weights in this layout."""
    if has_child(file, WHOLE_MODEL):
        file = open_child(file, WHOLE_MODEL, limits)
    return _lists_layers(file)


def kernels_of_legacy(file: BoundedFile, size: int, limits: Limits) -> list[Kernel]:
    """The kernels of a legacy HDF5 file.

    Args:
        file: The open HDF5 file.
        size: Its size in bytes.
        limits: What the file may ask of this machine.

    Returns:
        The kernels.
    """
    top = f"{WHOLE_MODEL}/" if has_child(file, WHOLE_MODEL) else ""
    arrays = FloatArrays(size, limits)
    kernels = []
    for path, found in walk(file, limits, passed_over=_is_state):
        if isinstance(found, h5py.Group) or not path.startswith(top):
            continue
        array = arrays.find(found, path)
        if array is not None:
            kernels.append(array.kernel(*_layer_and_variable(path.removeprefix(top))))
    return kernels


def _is_state(path: str) -> bool:
    return path == "optimizer_weights"


def _lists_layers(group: h5py.Group) -> bool:
    # A long list is split into layer_names0, layer_names1 and so on.
    return any(
        h5py.h5a.exists(group.id, name) for name in (b"layer_names", b"layer_names0")
    )


def _layer_and_variable(path: str) -> tuple[str, str]:
    *parts, variable = path.split("/")
    # TensorFlow 1 renamed layers that were built twice: conv/conv_1/kernel:0.
    again = re.compile(re.escape(parts[0] if parts else "") + r"(_\d+)?")
    for index in range(1, len(parts)):
        if again.fullmatch(parts[index]):
            parts = [parts[0], *parts[index + 1 :]]
            break
    return "/".join(parts), variable.removesuffix(":0")
