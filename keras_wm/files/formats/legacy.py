"""Weights in the HDF5 files of Keras 1 and 2, which Keras 3 still writes as `.h5`.

An array stands under its layer's name and then its own, which mostly starts with the
layer's name again: `conv/conv/kernel:0`. Where it does not, the layer is a model:
`encoder/dense/kernel:0`. Everything is told by the paths. The attributes that list
them are not read, because they may be arrays of texts of any length.
"""

from __future__ import annotations

import re
from typing import Any

import h5py

from keras_wm.errors import ModelFileError
from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts, facts_by_name
from keras_wm.files.contents import Kernel
from keras_wm.files.hdf5.array import StoredArray, StoredArrays
from keras_wm.files.hdf5.attributes import read_text_attribute
from keras_wm.files.hdf5.file import BoundedFile
from keras_wm.files.hdf5.walk import has_child, open_child, walk
from keras_wm.files.kernels.layer_weights import may_be_quantized, weights_of_layer
from keras_wm.files.kernels.lora import has_lora
from keras_wm.files.limits import Limits
from keras_wm.files.storage.untrusted_json import parse_json

WHOLE_MODEL = "model_weights"


def is_legacy(file: h5py.File, limits: Limits) -> bool:
    """Whether an HDF5 file has weights in this layout."""
    if has_child(file, WHOLE_MODEL):
        file = open_child(file, WHOLE_MODEL, limits)
    return _lists_layers(file)


def weights_of_legacy(file: BoundedFile, size: int, limits: Limits) -> list[Kernel]:
    """The weights of a legacy HDF5 file.

    Args:
        file: The open HDF5 file.
        size: Its size in bytes.
        limits: What the file may ask of this machine.

    Returns:
        The weights.
    """
    top = f"{WHOLE_MODEL}/" if has_child(file, WHOLE_MODEL) else ""
    stored = StoredArrays(size, limits)
    layers: dict[str, dict[str, StoredArray]] = {}
    for path, found in walk(file, limits, skip=_is_state):
        if isinstance(found, h5py.Group) or not path.startswith(top):
            continue
        array = stored.find(found, path)
        if array is not None:
            holder, _, variable = path.removeprefix(top).rpartition("/")
            layers.setdefault(holder, {})[variable] = array
    facts = _facts(file, layers, limits)
    return [
        weight
        for holder, arrays in layers.items()
        for weight in _weights(holder, arrays, facts, limits)
    ]


def _weights(
    holder: str,
    arrays: dict[str, StoredArray],
    facts: dict[str, LayerFacts],
    limits: Limits,
) -> list[Kernel]:
    layer = _layer(holder)
    named = {name.removesuffix(":0"): array for name, array in arrays.items()}
    whole = named if len(named) == len(arrays) else arrays
    known = facts.get(layer.rpartition("/")[2], NO_FACTS)
    return weights_of_layer(layer, whole, known, limits)


def _facts(
    file: BoundedFile, layers: dict[str, dict[str, StoredArray]], limits: Limits
) -> dict[str, LayerFacts]:
    """What the model's config tells of its layers, where arrays alone do not do."""
    every = layers.values()
    if not any(has_lora(arrays) or may_be_quantized(arrays) for arrays in every):
        return {}
    return facts_by_name(model_config(file, limits))


def model_config(file: BoundedFile, limits: Limits) -> Any:
    """The model's config; `None` where it is missing or damaged.

    The weights can be read without.
    """
    with file.listing():
        text = read_text_attribute(file, "model_config", limits, "config_bytes")
    try:
        return parse_json(text.encode(), limits) if text else None
    except ModelFileError:
        return None


def _is_state(path: str) -> bool:
    return path == "optimizer_weights"


def _lists_layers(group: h5py.Group) -> bool:
    # A long list is split into layer_names0, layer_names1 and so on.
    return any(
        h5py.h5a.exists(group.id, name) for name in (b"layer_names", b"layer_names0")
    )


def _layer(holder: str) -> str:
    parts = holder.split("/")
    # TensorFlow 1 renamed layers that were built twice: conv/conv_1/kernel:0.
    again = re.compile(re.escape(parts[0]) + r"(_\d+)?")
    for index in range(1, len(parts)):
        if again.fullmatch(parts[index]):
            parts = [parts[0], *parts[index + 1 :]]
            break
    return "/".join(parts)
