"""Kernels in the weights file of Keras 3 and of tf_keras's `.keras` archives.

A layer's variables are numbered, in a group `vars`. The path to it is made of
attributes and, within lists, of class names: the user's name of the layer is an
attribute of `vars` (from Keras 3.6 on) or in the model's config only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import h5py

from keras_wm.files.config_names import names_from_config
from keras_wm.files.float_array import FloatArray
from keras_wm.files.kernel import Kernel
from keras_wm.files.limits import Limits
from keras_wm.files.object_paths import is_state, layer_name
from keras_wm.files.shard import Shard, walk_shards
from keras_wm.files.text_attribute import text_attribute

_VARIABLES = "vars"


def kernels_of_keras3(
    shards: Sequence[Shard], limits: Limits, config: Callable[[], Any]
) -> list[Kernel] | None:
    """The kernels of a weights file, or of one that is split into shards.

    Args:
        shards: The open HDF5 file, or files.
        limits: What the files may ask of this machine together.
        config: Reads the model's config, which is asked for only if the file does
            not name its layers; `None` where there is none.

    Returns:
        The kernels, or `None` where the files are no such weights.
    """
    names: dict[str, str | None] = {}
    variables: list[tuple[str, str, FloatArray]] = []
    for shard, path, found in walk_shards(shards, limits, passed_over=is_state):
        holder, _, last = path.rpartition("/")
        if isinstance(found, h5py.Group):
            if last == _VARIABLES:
                # A shard may have the group, with or without the name, and not the
                # variables.
                name = text_attribute(found, "name", limits)
                names[holder] = names.get(holder) or name
            continue
        owner, is_variable, variable = f"/{path}".partition(f"/{_VARIABLES}/")
        owner = owner.removeprefix("/")
        if is_variable:
            array = shard.find(found, path)
            if array is not None:
                variables.append((owner, variable, array))
    if not names:
        return None
    if None in names.values():
        from_config = names_from_config(config(), names)
        names = {owner: name or from_config.get(owner) for owner, name in names.items()}
    return [
        array.kernel(layer_name(owner, names), variable)
        for owner, variable, array in variables
    ]
