"""Finding stored weights that the model does not use, according to its config.

Keras makes the layers in the config, and then reads the file at their paths only. Any
other array in the file is ignored, so that anybody can add one without changing what
the model computes. The owner of an array is the object at its path without the last
part: the layer `layers/dense_1`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from keras_wm.files.config.layer_classes import (
    class_of,
    count_kernels,
    has_weights,
    holds_layer,
    holds_list,
    is_built_in,
    is_model,
)
from keras_wm.files.config.layer_names import nodes_in_config
from keras_wm.files.config.nodes import settings_of

NO_LAYER = "no layer of the config has this weight"
NOT_CONNECTED = "the layer is not connected to the outputs of the model"
NOT_OF_CLASS = "layers of this class do not have this weight"
TWICE = "the file stores the weights of this layer in two places"

# The list of layers in files of Keras 2, which Keras reads only without the new one.
_OLD_LIST, _NEW_LIST = "_layer_checkpoint_dependencies", "layers"


@dataclass(frozen=True)
class Usage:
    """Use of the weights in a file, according to a config.

    Attributes:
        unused: Reasons why the model does not use the weights of an owner, by its
            path. Owners of used weights are missing.
        nodes: Nodes of the owners in the config, as far as they were found.
        custom_classes: Names of the classes that are not known here, and therefore
            account for everything inside them.
    """

    unused: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    custom_classes: tuple[str, ...] = ()

    def reason(self, owner: str, variable: str, kernels: Iterable[str]) -> str:
        """Returns why a kernel is not used, or an empty text if it is used.

        Args:
            owner: Path of the owner.
            variable: Name of the kernel, a number in a layer of a built-in class.
            kernels: Names of all kernels of this owner.
        """
        if owner in self.unused:
            return self.unused[owner]
        most = count_kernels(self.nodes.get(owner))
        if most is None:
            return ""
        numbers = {int(name) for name in kernels if _is_number(name)}
        used = sorted(numbers)[:most]
        is_used = _is_number(variable) and int(variable) in used
        return "" if is_used else NOT_OF_CLASS


def is_config(config: Any) -> bool:
    """Returns whether a value is the config of a model or layer of Keras."""
    return bool(class_of(config)) and bool(settings_of(config))


def usage_of(config: Any, owners: Iterable[str]) -> Usage:
    """Finds out which owners of weights a model has.

    Args:
        config: Untrusted config of the model. Without one, nothing is unused.
        owners: Paths of the owners, such as `"layers/dense_1"`.
    """
    owners = set(owners)
    paths = {path for owner in owners for path in _paths_to(owner)}
    nodes = nodes_in_config(config, paths)
    if not is_config(config):
        return Usage(nodes=nodes)
    tree = _Tree(config, sorted(paths), nodes)
    reasons = tree.reasons(owners)
    return Usage(reasons, nodes, tuple(sorted(tree.custom_classes)))


def _paths_to(owner: str) -> Iterable[str]:
    """Returns the paths of an owner and of the objects that contain it."""
    return ["", *accumulate(owner.split("/"), "{}/{}".format)] if owner else [""]


def _is_number(name: str) -> bool:
    # Keras reads the variable "1", and not "01".
    return name.isdecimal() and name.isascii() and str(int(name)) == name


# Kinds of objects at a path, besides the classes of built-in layers.
_CUSTOM = "an object of a custom class, or inside one"
_PART = "a layer without a node in the config, such as the cell of an LSTM"
_LIST = "a list of layers"
_NOTHING = "nothing that Keras reads"


class _Tree:
    """Objects at the paths of a file, according to the config.

    Args:
        config: Config of the model.
        paths: All paths, sorted, so that parents come first.
        nodes: Nodes at the paths.
    """

    def __init__(self, config: Any, paths: list[str], nodes: dict[str, Any]) -> None:
        self.custom_classes: set[str] = set()
        self._config = config
        self._nodes = nodes
        self._kinds: dict[str, str] = dict.fromkeys(paths, _NOTHING)
        # Paths of each element of a list. Keras 2 and 3 spell some classes differently.
        self._elements: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for path in paths:
            self._kinds[path] = self._kind(path)

    def _kind(self, path: str) -> str:
        node = self._nodes.get(path)
        if not path:
            return self._kind_of(node)
        parent, _, name = path.rpartition("/")
        kind, holder = self._kinds[parent], self._nodes.get(parent)
        if kind in (_CUSTOM, _NOTHING):
            return kind
        if kind == _LIST:
            if not isinstance(node, dict):
                return _NOTHING
            self._elements[parent, id(node)].append(path)
            return self._kind_of(node)
        if holds_list(holder, name):
            newer = f"{parent}/{_NEW_LIST}".removeprefix("/")
            is_ignored = name == _OLD_LIST and newer in self._kinds
            return _NOTHING if is_ignored else _LIST
        if kind == _PART or not holds_layer(holder, name):
            return _NOTHING
        return self._kind_of(node) if is_config(node) else _PART

    def _kind_of(self, node: Any) -> str:
        if is_built_in(node):
            return class_of(node)
        self.custom_classes.add(class_of(node))
        return _CUSTOM

    def reasons(self, owners: Iterable[str]) -> dict[str, str]:
        """Returns why weights are not used, by owner, for those that are not used."""
        owners = sorted(owners)
        reasons = {owner: self._reason(owner) for owner in owners}
        twice = self._stored_twice(owners)
        for owner in owners:
            if twice.intersection(_paths_to(owner)) and not reasons[owner]:
                reasons[owner] = TWICE
        return {owner: reason for owner, reason in reasons.items() if reason}

    def _reason(self, owner: str) -> str:
        kind = self._kinds[owner]
        if kind in (_CUSTOM, _PART):
            return ""
        if kind == _LIST:
            return NO_LAYER
        if kind != _NOTHING:
            return "" if has_weights(self._nodes[owner]) else NOT_OF_CLASS
        start = self._start_of_nothing(owner)
        parent = start.rpartition("/")[0]
        if self._kinds[parent] != _LIST and not is_model(self._nodes.get(parent)):
            return NOT_OF_CLASS
        is_in_config = isinstance(self._all_nodes.get(start), dict)
        return NOT_CONNECTED if is_in_config else NO_LAYER

    def _start_of_nothing(self, path: str) -> str:
        """Returns the first path towards a path where there is nothing."""
        return next(part for part in _paths_to(path) if self._kinds[part] == _NOTHING)

    @cached_property
    def _all_nodes(self) -> dict[str, Any]:
        """The nodes at the paths, also those of layers that are not connected."""
        return nodes_in_config(self._config, self._kinds, connected=False)

    def _stored_twice(self, owners: list[str]) -> set[str]:
        """Returns paths of objects that Keras can read from another path, too.

        Keras tries all attributes that lead to a layer until it has read it. It writes
        the weights at the first of these paths only.
        """
        twice = {
            path
            for paths in self._elements.values()
            if len(paths) > 1
            for path in paths
        }
        for path in self._kinds:
            parent, _, name = path.rpartition("/")
            other = f"{parent}/{name.removeprefix('_')}"
            if name.startswith("_") and self._kinds.get(other) == _PART:
                twice |= {path, other}
        # Names of classes in other attributes of a model, with the path of the model.
        aliases = set()
        for owner in owners:
            if self._kinds[owner] == _NOTHING:
                holder, _, attribute = self._start_of_nothing(owner).rpartition("/")
                is_alias = attribute.startswith("_") and attribute != _OLD_LIST
                if is_alias and is_model(self._nodes.get(holder)):
                    aliases.add((_name_of_class(owner), holder))
        for owner in owners if aliases else ():
            name = _name_of_class(owner)
            if any((name, path) in aliases for path in _paths_to(owner)):
                twice.add(owner)
        return twice


def _name_of_class(path: str) -> str:
    return path.rpartition("/")[2].rstrip("0123456789").strip("_")
