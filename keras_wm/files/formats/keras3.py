"""Weights in the weights file of Keras 3 and of tf_keras's `.keras` archives.

A layer's variables are numbered, in a group `vars`. The path to it is made of
attributes and, within lists, of class names: the user's name of the layer is an
attribute of `vars` (from Keras 3.6 on) or in the model's config only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import h5py

from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts
from keras_wm.files.config.layer_names import name_in, nodes_in_config
from keras_wm.files.config.object_paths import is_state, layer_name
from keras_wm.files.contents import Kernel
from keras_wm.files.formats.shard import Shard, walk_shards
from keras_wm.files.hdf5.array import StoredArray
from keras_wm.files.hdf5.attributes import read_text_attribute
from keras_wm.files.kernels.layer_weights import may_be_quantized, weights_of_layer
from keras_wm.files.limits import Limits

_VARIABLES = "vars"


def weights_of_keras3(
    shards: Sequence[Shard], limits: Limits, config: Callable[[], Any]
) -> list[Kernel] | None:
    """The weights of a weights file, or of one that is split into shards.

    Args:
        shards: The open HDF5 file, or files.
        limits: What the files may ask of this machine together.
        config: Reads the model's config, which is asked for only if the file does
            not name its layers or has integers in them; `None` where there is none.

    Returns:
        The weights, or `None` where the files are no such file.
    """
    names: dict[str, str | None] = {}
    layers: dict[str, dict[str, StoredArray]] = {}
    for shard, path, found in walk_shards(shards, limits, skip=is_state):
        holder, _, last = path.rpartition("/")
        if isinstance(found, h5py.Group):
            if last == _VARIABLES:
                # A shard may have the group, with or without the name, and not the
                # variables.
                name = read_text_attribute(found, "name", limits)
                names[holder] = names.get(holder) or name
            continue
        owner, is_variable, variable = f"/{path}".partition(f"/{_VARIABLES}/")
        if is_variable:
            array = shard.find(found, path)
            if array is not None:
                layers.setdefault(owner.removeprefix("/"), {})[variable] = array
    if not names:
        return None
    facts: dict[str, LayerFacts] = {}
    if None in names.values() or any(map(may_be_quantized, layers.values())):
        nodes = nodes_in_config(config(), names)
        names = {
            owner: name or name_in(nodes.get(owner)) for owner, name in names.items()
        }
        facts = _facts(layers, nodes)
    return [
        weight
        for owner, arrays in layers.items()
        for weight in weights_of_layer(
            layer_name(owner, names),
            arrays,
            facts.get(owner, NO_FACTS),
            limits,
        )
    ]


def _facts(layers: Iterable[str], nodes: dict[str, Any]) -> dict[str, LayerFacts]:
    """What the config says of each layer, and of those that are not in it.

    Those within an attention layer are not, but one call quantizes a whole model.
    """
    modes = {LayerFacts.from_config(node).mode for node in nodes.values()} - {""}
    common = LayerFacts(modes.pop() if len(modes) == 1 else "")
    return {
        owner: LayerFacts.from_config(nodes[owner]) if nodes.get(owner) else common
        for owner in layers
    }
