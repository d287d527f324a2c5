"""Keras 3's weights: arrays under class names, and whose layer each belongs to.

A `Conv2D` called `c1` is stored at `layers/conv2d_1/vars/0`: class names in snake
case, numbered within each container. Its own name stands in an attribute since Keras
3.6, and before that in `config.json` alone. That is read as plain data.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from keras_wm.files.hdf5 import SafeFile, dtype_name
from keras_wm.files.kernel import Kernel, printable

_VARIABLES = "vars"
# A model within a model may have been compiled too, so these may stand anywhere.
_SKIPPED = frozenset({"optimizer", "metrics"})
# A list of layers, and the number that its second layer of a class gets. Keras 2.12 and
# 2.13 had another name for the list, and counted from 1.
_CONTAINERS = {"layers": 1, "_layer_checkpoint_dependencies": 2}
_DEPTH = 64

Names = dict[str, str]


def keras3_kernels(file: SafeFile, names: Names) -> list[Kernel]:
    """The kernels of a Keras 3 weights file.

    Args:
        file: The file.
        names: Layer names by group path, from `names_in_config`; those that the
            file holds itself go first.
    """
    namer = _Namer(file, names)
    kernels = []
    for path, array in file.arrays(skipped=_SKIPPED):
        group, _, variable = path.rpartition("/")
        parent, _, last = group.rpartition("/")
        if last != _VARIABLES:
            continue

        def read(array: Any = array, path: str = path) -> Any:
            return file.read(array, path)

        layer = namer.layer(parent)
        kernels.append(
            Kernel(
                layer, printable(variable), path, array.shape, dtype_name(array), read
            )
        )
    return kernels


def names_in_config(content: bytes) -> Names:
    """Layer names by group path, from a `config.json`.

    A config that is broken or strange gives no names, for it must not keep a kernel
    from being read.
    """
    try:
        config = json.loads(content).get("config")
        return {
            path: name
            for container, second in _CONTAINERS.items()
            for path, name in _named(config, "", container, second, 0)
        }
    except (ValueError, RecursionError, AttributeError):
        return {}


class _Namer:
    """Finds the user's name of the layer that a group belongs to."""

    def __init__(self, file: SafeFile, names: Names) -> None:
        self._file, self._names = file, names
        self._known: dict[str, str | None] = {}

    def layer(self, group: str) -> str:
        """The names of a layer and of those around it, joined by slashes."""
        named: list[str] = []
        unnamed: list[str] = []
        parts = group.split("/")
        for end, part in enumerate(parts, start=1):
            name = self._name("/".join(parts[:end]))
            if name:
                named.append(name)
                unnamed = []
            elif part not in _CONTAINERS:
                unnamed.append(part)
        return printable("/".join(filter(None, named + unnamed))) or "model"

    def _name(self, group: str) -> str | None:
        if group not in self._known:
            attribute = None
            if _VARIABLES in self._file.names(group):
                path = f"{group}/{_VARIABLES}"
                attribute = self._file.text_attribute(path, "name")
            self._known[group] = attribute or self._names.get(group)
        return self._known[group]


def _named(
    config: Any, path: str, container: str, second: int, depth: int
) -> Iterator[tuple[str, str]]:
    """The layers of a config and, below them, those of models and wrappers."""
    if not isinstance(config, dict) or depth > _DEPTH:
        return
    used: Counter[str] = Counter()
    children = dict(config)
    layers = children.pop("layers", None)
    for layer in layers if isinstance(layers, list) else []:
        kind = _snake_case(layer.get("class_name")) if isinstance(layer, dict) else ""
        number = f"_{used[kind] - 1 + second}" if used[kind] else ""
        used[kind] += 1
        children[_joined(container, kind + number)] = layer
    for attribute, layer in children.items():
        if isinstance(layer, dict) and isinstance(layer.get("config"), dict):
            below = _joined(path, attribute)
            name = layer["config"].get("name")
            if isinstance(name, str):
                yield below, name
            yield from _named(layer["config"], below, container, second, depth + 1)


def _joined(*parts: str) -> str:
    return "/".join(filter(None, parts))


def _snake_case(class_name: Any) -> str:
    """A class's name as Keras writes it into paths."""
    name = re.sub(r"\W+", "", str(class_name).rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
