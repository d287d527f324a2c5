"""Names and nodes of layers, by the paths under which a file stores their variables.

Up to Keras 3.6, the path of a layer's weights in a `.keras` archive is made of class
names with a counter: the second `Dense` of a model is `layers/dense_1`, whatever name
the user gave it. The user's name is in the model's config only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from keras_wm.files.config.connections import connected_layers
from keras_wm.files.config.layer_classes import class_of
from keras_wm.files.config.nodes import as_list, settings_of

# The lists of a model's layers in Keras 3 and in Keras 2.
_LISTS = ("layers", "_layer_checkpoint_dependencies")
# Attributes whose value has another name in the config.
_RENAMED = {"_layer_checkpoint_dependencies": "layers", "forward_layer": "layer"}
_CLASS_CHARS = 100
# Bounds the time for a config in which every class name is different.
_CLASSES = 1000


def is_state(owner: str) -> bool:
    """Returns whether the path of an object leads to an optimizer or a metric."""
    return any(
        (name in ("optimizer", "metrics") or name.endswith("_optimizer"))
        # The name of a layer can be anything.
        and holder not in _LISTS
        for holder, name in pairwise(["", *owner.split("/")])
    )


def is_list(path: str) -> bool:
    """Returns whether a path leads to the list of a model's layers."""
    return path.rpartition("/")[2] in _LISTS


def layer_name(owner: str, names: Mapping[str, str | None]) -> str:
    """Returns the name of a layer, preceded by the names of the models around it.

    Args:
        owner: Path of the layer, such as `"layers/functional/layers/dense_1"`.
        names: Names of all objects that own variables, by path; `None` if unknown.
            Paths that are missing, such as `"layers"`, are lists, which users do not
            see.

    Returns:
        The names joined by slashes, with the last part of the path for an unknown one.
    """
    parts = owner.split("/")
    paths = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return "/".join(
        names[path] or path.rpartition("/")[2] for path in paths if path in names
    )


def nodes_in_config(
    config: Any, owners: Iterable[str], connected: bool = True
) -> dict[str, Any]:
    """Finds the nodes of the objects that own variables.

    Args:
        config: Untrusted config of the model.
        owners: Paths of the objects, such as `"layers/dense_1"`.
        connected: Whether to leave out layers that are not connected to the outputs
            of their model, as Keras does when it loads a model.

    Returns:
        The nodes by path, as far as they were found. They are not vetted.
    """
    owners = sorted(owners)
    ranks = _ranks(owners)
    nodes = {"": config}
    families: dict[tuple[int, str], dict[str, list[Any]]] = {}
    spellings: dict[str, set[str]] = {}
    # Sorted, so that the node of a parent is known before the nodes of its children.
    for owner in filter(None, owners):
        holder, _, component = owner.rpartition("/")
        outer, _, attribute = holder.rpartition("/")
        if isinstance(nodes.get(holder), dict):
            nodes[owner] = _attribute(nodes[holder], component)
        elif outer in nodes:
            family = (id(nodes[outer]), attribute)
            if family not in families:
                container = _attribute(nodes[outer], attribute)
                if connected and is_list(attribute):
                    container = connected_layers(settings_of(nodes[outer]))
                families[family] = _nodes_by_class(container, spellings)
            # Only a list of Keras 2 starts with an underscore; see `_ranks`.
            ranked = ranks[owner] if attribute.startswith("_") else None
            nodes[owner] = _element(families[family], component, ranked)
    return nodes


def _attribute(node: Any, attribute: str) -> Any:
    settings = settings_of(node)
    # The backward layer is in the config only if the user gave one.
    if attribute == "backward_layer" and not settings.get(attribute):
        attribute = "forward_layer"
    return settings.get(_RENAMED.get(attribute, attribute))


def _element(
    family: dict[str, list[Any]], component: str, ranked: tuple[int, int] | None
) -> Any | None:
    """Returns the node of a container's element, by its name in the file."""
    name, index = (component, 0) if component in family else _split_counter(component)
    nodes = family.get(name, [])
    if ranked is not None:
        index, count = ranked
        # With more paths than layers, nobody knows which of them are the layers.
        nodes = nodes if count <= len(nodes) else []
    return nodes[index] if index < len(nodes) else None


def _split_counter(path: str) -> tuple[str, int]:
    """Splits `"conv2d_2"` into `("conv2d", 2)`, and `"conv2d"` into `("conv2d", 0)`."""
    # Keras writes neither conv2d_0 nor conv2d_02.
    match = re.fullmatch(r"(.+)_([1-9][0-9]{0,8})", path, re.DOTALL)
    return (match[1], int(match[2])) if match else (path, 0)


def _ranks(owners: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Returns the rank of each path among paths that differ only in their counter.

    Each rank comes with the number of these paths.

    Keras 2.13 counts a layer with weights twice: conv2d, conv2d_2, conv2d_4.
    """
    same_name = defaultdict(list)
    for owner in owners:
        name, number = _split_counter(owner)
        same_name[name].append((number, owner))
    return {
        owner: (rank, len(numbered))
        for numbered in same_name.values()
        for rank, (_, owner) in enumerate(sorted(numbered))
    }


def _nodes_by_class(
    container: Any, spellings: dict[str, set[str]]
) -> dict[str, list[Any]]:
    """Groups the nodes in a container by the spelling of their class in a file.

    Args:
        container: The list of nodes, which is not vetted.
        spellings: Spellings of each class in Keras 2 and 3, to which those of new
            classes are added.
    """
    families = defaultdict(list)
    for node in as_list(container):
        name = _class_name(node)
        if name is None:
            continue
        if name not in spellings and len(spellings) < _CLASSES:
            words = ("[a-z]+", "[a-z0-9]+")
            spellings[name] = {_snake_case(name, word) for word in words}
        for spelling in spellings.get(name, ()):
            families[spelling].append(node)
    return families


def _class_name(node: Any) -> str | None:
    if not isinstance(node, dict):
        return None
    name, module = class_of(node), node.get("module")
    if not 0 < len(name) <= _CLASS_CHARS:
        return None
    # A config lists operations such as `keras.ops.add` among the layers.
    if isinstance(module, str) and ".ops." in module:
        return None
    return name


def _snake_case(name: str, rest_of_word: str) -> str:
    words = re.sub(rf"(.)([A-Z]{rest_of_word})", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()
