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
_SKIPPED = frozenset({"optimizer", "metrics", "loss"})
# What Keras 2.13 called its list of layers.
_CONTAINERS = {"layers": "layers", "_layer_checkpoint_dependencies": "layers"}
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
        config = json.loads(content)
        return dict(_named(config.get("config"), "", 0))
    except (ValueError, RecursionError, AttributeError):
        return {}


class _Namer:
    """Finds the user's name of the layer that a group belongs to."""

    def __init__(self, file: SafeFile, names: Names) -> None:
        self._file, self._names = file, names
        self._known: dict[str, str | None] = {}

    def layer(self, group: str) -> str:
        """The names of a layer and of those around it, joined by slashes."""
        parts = group.split("/") if group else []
        groups = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        named = [name for name in map(self._name, groups) if name]
        if parts and not self._name(group):
            named.append(parts[-1])
        return printable("/".join(named)) or "model"

    def _name(self, group: str) -> str | None:
        if group not in self._known:
            attribute = None
            if _VARIABLES in self._file.names(group):
                path = f"{group}/{_VARIABLES}"
                attribute = self._file.text_attribute(path, "name")
            self._known[group] = attribute or self._names.get(_normalized(group))
        return self._known[group]


def _normalized(group: str) -> str:
    return "/".join(_CONTAINERS.get(part, part) for part in group.split("/"))


def _named(config: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """The layers of a config and, below them, those of models and wrappers."""
    if not isinstance(config, dict) or depth > _DEPTH:
        return
    used: Counter[str] = Counter()
    layers = config.get("layers")
    for layer in layers if isinstance(layers, list) else []:
        kind = _snake_case(layer.get("class_name")) if isinstance(layer, dict) else ""
        numbered = f"{kind}_{used[kind]}" if used[kind] else kind
        used[kind] += 1
        yield from _named_layer(layer, _joined(path, "layers", numbered), depth)
    for attribute, value in config.items():
        yield from _named_layer(value, _joined(path, attribute), depth)


def _named_layer(layer: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
        return
    name = layer["config"].get("name")
    if isinstance(name, str):
        yield path, name
    yield from _named(layer["config"], path, depth + 1)


def _joined(*parts: str) -> str:
    return "/".join(filter(None, parts))


def _snake_case(class_name: Any) -> str:
    """A class's name as Keras writes it into paths."""
    name = re.sub(r"\W+", "", str(class_name).rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
