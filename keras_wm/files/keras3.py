"""Kernels in the weights file of Keras 3 and of tf_keras's `.keras` archives.

A layer's variables are numbered, in a group `vars`. The path to it is made of
attributes and, within lists, of class names: the user's name of the layer is an
attribute of `vars` (from Keras 3.6 on) or in the model's config only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h5py

from keras_wm.files.bounded_hdf5 import BoundedFile
from keras_wm.files.config_names import names_from_config
from keras_wm.files.float_array import FloatArray, FloatArrays
from keras_wm.files.kernel import Kernel
from keras_wm.files.limits import Limits
from keras_wm.files.text_attribute import text_attribute
from keras_wm.files.walk import walk

_VARIABLES = "vars"
_LISTS = ("layers", "_layer_checkpoint_dependencies")


def kernels_of_keras3(
    file: BoundedFile, size: int, limits: Limits, config: Callable[[], Any]
) -> list[Kernel] | None:
    """The kernels of a weights file.

    Args:
        file: The open HDF5 file.
        size: Its size in bytes.
        limits: What the file may ask of this machine.
        config: Reads the model's config, which is asked for only if the file does
            not name its layers; `None` where there is none.

    Returns:
        The kernels, or `None` where the file is not such a weights file.
    """
    names: dict[str, str | None] = {}
    arrays = FloatArrays(size, limits)
    variables: list[tuple[str, str, FloatArray]] = []
    for path, found in walk(file, limits, passed_over=_is_state):
        holder, _, last = path.rpartition("/")
        if isinstance(found, h5py.Group):
            if last == _VARIABLES:
                names[holder] = text_attribute(found, "name", limits)
            continue
        owner, is_variable, variable = f"/{path}".partition(f"/{_VARIABLES}/")
        owner = owner.removeprefix("/")
        if is_variable:
            array = arrays.find(found, path)
            if array is not None:
                variables.append((owner, variable, array))
    if not names:
        return None
    if None in names.values():
        from_config = names_from_config(config(), names)
        names = {owner: name or from_config.get(owner) for owner, name in names.items()}
    return [
        array.kernel(_layer_name(owner, names), variable)
        for owner, variable, array in variables
    ]


def _is_state(owner: str) -> bool:
    """Whether an object is an optimizer or a metric, of the model or within it."""
    parts = owner.split("/")
    attributes = (
        part
        for holder, part in zip(["", *parts], parts, strict=False)
        if holder not in _LISTS
    )
    return any(
        part in ("optimizer", "metrics") or part.endswith("_optimizer")
        for part in attributes
    )


def _layer_name(owner: str, names: dict[str, str | None]) -> str:
    """The names of the objects on the way to a variable.

    Groups without `vars` are lists, such as `layers`, which users do not see.
    """
    parts = owner.split("/")
    paths = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    named = [path for path in paths if path in names]
    return "/".join(names[path] or path.rpartition("/")[2] for path in named)
