"""HDF5 files: weights of Keras 3, and legacy files of whole models or weights.

Keras 1 and 2 wrote legacy files, and Keras 3 still writes them as `.h5`. In them, the
path of an array is the name of its layer and then the array's own name, which usually
starts with the layer's name again: `conv/conv/kernel:0`. Otherwise the layer is a
model: `encoder/dense/kernel:0`. The names are derived from the paths alone.

Attributes list the names of the layers and of their arrays. Keras reads these arrays
only, and only if their number is that of the model's weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import h5py

from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts, facts_by_name
from keras_wm.files.contents import (
    Contents,
    Kernel,
    ReadConfig,
    Stored,
    arrays_of,
)
from keras_wm.files.formats.keras3 import weights_of_keras3
from keras_wm.files.hdf5.array import StoredArrays
from keras_wm.files.hdf5.file import (
    BoundedFile,
    is_hdf5,
    read_text_attribute,
    read_text_list,
)
from keras_wm.files.hdf5.walk import has_child, open_child, walk
from keras_wm.files.kernels.layer_weights import (
    has_lora,
    may_be_quantized,
    weights_of_layer,
)
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.untrusted_json import parse_config

_WHOLE_MODEL = "model_weights"
_OPTIMIZER = "optimizer_weights"
# The group with the weights that belong to no layer of the model.
_TOP_LEVEL = "top_level_model_weights"
_CONFIG = "model_config"
_NOT_LISTED = "the file does not list this weight as one of a layer"
# Attributes of a legacy file. A long list is split into layer_names0, layer_names1, ...
_LEGACY_LISTS = (b"layer_names", b"layer_names0")


def recognise(source: Source, stack: ExitStack, config: ReadConfig) -> Contents | None:
    """Returns the contents of a `.weights.h5` or `.h5` file, if it is one.

    Args:
        source: The open file.
        stack: Closes the opened files.
        config: Reads the model's config, if it is stored in another file.

    Returns:
        The contents, or `None` if the file has another format.
    """
    if not is_hdf5(source):
        return None
    file = stack.enter_context(BoundedFile(source))
    is_whole = has_child(file, _WHOLE_MODEL)
    group = open_child(file, _WHOLE_MODEL, source.limits) if is_whole else file
    if any(h5py.h5a.exists(group.id, name) for name in _LEGACY_LISTS):
        part = "" if is_whole else " weights"
        weights, arrays = _weights_of_legacy(file, group)
        return Contents(
            f"legacy HDF5{part} (.h5)",
            weights,
            lambda: _model_config(file),
            lambda: arrays,
            has_config=is_whole and h5py.h5a.exists(file.id, _CONFIG.encode()),
        )
    return weights_of_keras3({"": file}, source.limits, config)


def _weights_of_legacy(
    file: BoundedFile, top: h5py.Group
) -> tuple[list[Kernel], list[Stored]]:
    """Lists the weights of a legacy HDF5 file, and the arrays that Keras reads."""
    stored, limits = StoredArrays(file), file.source.limits
    prefix = "" if top == file else f"{_WHOLE_MODEL}/"
    layer_names = read_text_list(file, top, "layer_names", limits)
    # The names of the arrays of each group.
    listed: dict[str, list[str]] = {}
    # Arrays by their group, those that Keras reads apart from the others.
    groups: dict[tuple[str, bool], dict[str, Stored]] = {}
    found: list[tuple[str, Stored]] = []
    for path, item in walk(file, skip=lambda path: path == _OPTIMIZER):
        if not path.startswith(prefix):
            continue
        if isinstance(item, h5py.Group):
            listed[path] = read_text_list(file, item, "weight_names", limits)
            continue
        array = stored.find(item, path)
        if array is not None:
            found.append((path.removeprefix(prefix), array))
    read = {
        f"{layer}/{name}"
        for layer in {*layer_names, _TOP_LEVEL}
        for name in listed.get(f"{prefix}{layer}", ())
    }
    for path, array in found:
        holder, _, variable = path.rpartition("/")
        groups.setdefault((holder, path in read), {})[variable] = array
    facts = _layer_facts(file, groups.values())
    weights: list[Kernel] = []
    for (holder, is_read), arrays in groups.items():
        layer = _layer_name(holder)
        layer_facts = facts.get(layer.rpartition("/")[2], NO_FACTS)
        named = _without_suffixes(arrays)
        weights += [
            replace(weight, unused="" if is_read else _NOT_LISTED)
            for weight in weights_of_layer(layer, named, layer_facts, limits)
        ]
    read_by_keras = (arrays for (_, is_read), arrays in groups.items() if is_read)
    return weights, arrays_of(read_by_keras)


def _without_suffixes(arrays: dict[str, Stored]) -> dict[str, Stored]:
    """Returns the arrays by the names of their variables: `kernel` for `kernel:0`."""
    named = {name.removesuffix(":0"): array for name, array in arrays.items()}
    # A hostile file can have both names; neither array may be lost.
    return named if len(named) == len(arrays) else arrays


def _layer_facts(
    file: BoundedFile, layers: Collection[dict[str, Stored]]
) -> dict[str, LayerFacts]:
    """Returns the facts in the model's config, if they are needed to read the arrays.

    Otherwise the config, which can be large, is not read.
    """
    if not any(has_lora(arrays) or may_be_quantized(arrays) for arrays in layers):
        return {}
    return facts_by_name(_model_config(file))


def _model_config(file: BoundedFile) -> Any:
    """Returns the model's config, or `None` if it is missing or damaged."""
    limits = file.source.limits
    with file.listing():
        text = read_text_attribute(file, _CONFIG, limits, "config_bytes")
    return parse_config(text.encode(), limits) if text else None


def _layer_name(holder: str) -> str:
    """Returns the name of a layer from the path of the group with its arrays."""
    parts = holder.split("/")
    # TensorFlow 1 renamed layers that were built twice: conv/conv_1/kernel:0.
    repeated = re.compile(re.escape(parts[0]) + r"(_\d+)?")
    for index in range(1, len(parts)):
        if repeated.fullmatch(parts[index]):
            parts = [parts[0], *parts[index + 1 :]]
            break
    return "/".join(parts)
