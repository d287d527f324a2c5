"""The `.h5` files of Keras 1 and 2, and those that Keras 3 writes in their manner.

A kernel stands at `layer/layer/kernel:0`, below `model_weights` in a file of a whole
model; Keras 3 leaves the `:0` out. Names are the user's own.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from keras_wm.files.hdf5 import SafeFile, dtype_name
from keras_wm.files.kernel import Kernel, printable

_WHOLE_MODEL = "model_weights"


def is_legacy(file: SafeFile) -> bool:
    """Whether an HDF5 file is laid out in this manner."""
    # A long list of names is split into `layer_names0`, `layer_names1`, and so on.
    return _WHOLE_MODEL in file.names("") or any(
        file.has_attribute("", name) for name in ("layer_names", "layer_names0")
    )


def legacy_kernels(file: SafeFile) -> list[Kernel]:
    """The kernels of a legacy file."""
    root = _WHOLE_MODEL if _WHOLE_MODEL in file.names("") else ""
    kernels = []
    for path, array in file.arrays(root):

        def read(array: Any = array, path: str = path) -> Any:
            return file.read(array, path)

        *layers, variable = path.removeprefix(f"{root}/").split("/")
        variable = variable.removesuffix(":0")
        kernels.append(
            Kernel(
                printable(_layer(layers)) or "model",
                printable(variable),
                path,
                array.shape,
                dtype_name(array),
                read,
            )
        )
    return kernels


def _layer(parts: list[str]) -> str:
    """A layer's name, which its path repeats: `c1/c1`, or `c1/model/c1`."""
    if parts and parts[0] == parts[-1]:
        return parts[0]
    return "/".join(part for part, _ in groupby(parts))
