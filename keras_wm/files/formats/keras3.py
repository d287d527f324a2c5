"""HDF5 weights files of Keras 3 and of tf_keras's `.keras` archives, possibly sharded.

The variables of a layer are numbered, in a group `vars`. Its path consists of attribute
names and, within lists, of class names. The user's name of the layer is an attribute of
`vars` (from Keras 3.6 on), or is only in the model's config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import h5py

from keras_wm.errors import UnsafeFileError
from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts
from keras_wm.files.config.layer_names import is_state, layer_name
from keras_wm.files.config.nodes import name_of
from keras_wm.files.config.usage import Usage, is_config, usage_of
from keras_wm.files.contents import Contents, Kernel, ReadConfig, Stored, arrays_of
from keras_wm.files.hdf5.array import StoredArrays
from keras_wm.files.hdf5.file import BoundedFile, read_text_attribute
from keras_wm.files.hdf5.walk import walk
from keras_wm.files.kernels.layer_weights import may_be_quantized, weights_of_layer
from keras_wm.files.limits import Limits, vet_limit
from keras_wm.files.storage.source import naming_errors
from keras_wm.utils.text import printable

_VARIABLES = "vars"
_NOT_LISTED = "the index does not say that this weight is in this shard"

IsListed = Callable[[str, str], bool]


def weights_of_keras3(
    shards: Mapping[str, BoundedFile],
    limits: Limits,
    read_config: ReadConfig,
    is_listed: IsListed = lambda shard, owner: True,
) -> Contents | None:
    """Lists the weights and the arrays in a weights file, or in its shards.

    Args:
        shards: The open HDF5 files by name. The name is empty if there is only one.
        limits: Limits on the resources that the files together can use.
        read_config: Reads the model's config, or returns `None` if there is none.
        is_listed: Returns whether Keras reads the weights of an object, given by its
            path, from a shard.

    Returns:
        The contents, or `None` if the files have another format.
    """
    stored = {shard: StoredArrays(file) for shard, file in shards.items()}
    names: dict[str, str | None] = {}
    # The arrays of each object, those that Keras reads apart from the others.
    objects: dict[tuple[str, bool], dict[str, Stored]] = {}
    for shard, path, item in _walk_shards(shards, limits):
        holder, _, last = path.rpartition("/")
        if isinstance(item, h5py.Group):
            if last == _VARIABLES:
                # A shard can contain the group, with or without its name, but not
                # the variables.
                name = read_text_attribute(item, "name", limits)
                names[holder] = names.get(holder) or name
            continue
        owner, is_variable, variable = f"/{path}".partition(f"/{_VARIABLES}/")
        if is_variable:
            array = stored[shard].find(item, f"{shard}/{path}".removeprefix("/"))
            if array is not None:
                owner = owner.removeprefix("/")
                key = (owner, is_listed(shard, owner))
                objects.setdefault(key, {})[variable] = array
    if not names:
        return None
    config = read_config()
    usage = usage_of(config, names)
    names = {
        owner: name or name_of(usage.nodes.get(owner)) for owner, name in names.items()
    }
    facts: dict[str, LayerFacts] = {}
    if any(map(may_be_quantized, objects.values())):
        facts = _layer_facts([owner for owner, _ in objects], usage.nodes)
    weights: list[Kernel] = []
    for (owner, listed), arrays in objects.items():
        layer = layer_name(owner, names)
        found = weights_of_layer(layer, arrays, facts.get(owner, NO_FACTS), limits)
        if listed:
            weights += _with_usage(owner, found, usage)
        else:
            weights += [replace(weight, unused=_NOT_LISTED) for weight in found]
    read_by_keras = [
        arrays
        for (owner, listed), arrays in objects.items()
        if listed and owner not in usage.unused
    ]
    return Contents(
        "Keras weights (.weights.h5)",
        weights,
        arrays=lambda: arrays_of(read_by_keras),
        has_config=is_config(config),
        custom_classes=tuple(map(printable, usage.custom_classes)),
    )


def _with_usage(owner: str, weights: list[Kernel], usage: Usage) -> list[Kernel]:
    """Returns the weights of an object with the reasons why they are not used."""
    kernels = {weight.variable for weight in weights if len(weight.shape) > 1}
    return [
        replace(weight, unused=usage.reason(owner, weight.variable, kernels))
        if weight.variable in kernels or owner in usage.unused
        else weight
        for weight in weights
    ]


def _walk_shards(
    shards: Mapping[str, BoundedFile], limits: Limits
) -> Iterator[tuple[str, str, h5py.Group | h5py.Dataset]]:
    """Walks through the groups and datasets of all shards; see `walk`.

    Yields:
        The name of a shard, the path of an object in it, and the object. A group can
        be in several shards, and a dataset cannot.
    """
    objects = 0
    datasets: set[str] = set()
    for shard, file in shards.items():
        with naming_errors(shard) if shard else nullcontext():
            for path, item in walk(file, skip=is_state):
                objects += 1
                problem = "the shards have more objects together"
                vet_limit(limits, "objects", objects, problem)
                if isinstance(item, h5py.Dataset):
                    if path in datasets:
                        raise UnsafeFileError(
                            f"'{printable(path)}' is in another shard, too. "
                            "Keras writes no such shards: do not use them."
                        )
                    datasets.add(path)
                yield shard, path, item


def _layer_facts(layers: Iterable[str], nodes: dict[str, Any]) -> dict[str, LayerFacts]:
    """Returns the facts about each layer, by its path.

    The config has no nodes for the layers within an attention layer. But Keras
    quantizes a whole model with one call, so the mode of the others applies to them.
    """
    modes = {LayerFacts.from_config(node).mode for node in nodes.values()} - {""}
    common = LayerFacts(modes.pop() if len(modes) == 1 else "")
    return {
        owner: LayerFacts.from_config(nodes[owner]) if nodes.get(owner) else common
        for owner in layers
    }
