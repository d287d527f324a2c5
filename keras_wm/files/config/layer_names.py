"""What a model's config, read as plain data, says of layers: their names and nodes.

Until Keras 3.6, the weights of a `.keras` archive are filed under class names with a
counter: the second `Dense` of a model is `dense_1`, whatever the user calls it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

_RENAMED = {"_layer_checkpoint_dependencies": "layers", "forward_layer": "layer"}
_NAME_CHARS = 1024
_CLASS_CHARS = 100
# A config of nothing but different classes would take a long time to spell.
_CLASSES = 1000


def nodes_in_config(config: Any, owners: Iterable[str]) -> dict[str, Any]:
    """What the config says of each object that owns variables.

    Args:
        config: What `config.json` holds; nothing about it is taken for granted.
        owners: The paths of the objects that own variables, such as
            `"layers/dense_1"`.

    Returns:
        The objects' own configs, by path, as far as they are found; they may be
        anything.
    """
    owners = sorted(owners)
    ranks = _ranks(owners)
    nodes = {"": config}
    families: dict[int, dict[str, list[Any]]] = {}
    spellings: dict[str, set[str]] = {}
    for owner in filter(None, owners):
        holder, _, component = owner.rpartition("/")
        outer, _, attribute = holder.rpartition("/")
        if holder in nodes:
            nodes[owner] = _member(nodes[holder], component)
        elif outer in nodes:
            container = _member(nodes[outer], attribute)
            if id(container) not in families:
                families[id(container)] = _by_class(container, spellings)
            rank = ranks[owner] if attribute.startswith("_") else None
            nodes[owner] = _element(families[id(container)], component, rank)
    return nodes


def _member(node: Any, attribute: str) -> Any:
    return _settings(node).get(_RENAMED.get(attribute, attribute))


def _element(
    family: dict[str, list[Any]], component: str, rank: int | None
) -> Any | None:
    """The config of a container's element, by its name in the file."""
    name, number = (component, 0) if component in family else _counted(component)
    same, index = family.get(name, []), number if rank is None else rank
    return same[index] if index < len(same) else None


def _counted(path: str) -> tuple[str, int]:
    """`"conv2d_2"` is `("conv2d", 2)`, and `"conv2d"` is `("conv2d", 0)`."""
    match = re.fullmatch(r"(.+)_([0-9]{1,9})", path, re.DOTALL)
    return (match[1], int(match[2])) if match else (path, 0)


def _ranks(owners: Iterable[str]) -> dict[str, int]:
    """The place of every path among those that differ from it in the number only.

    Keras 2.13 counts a layer with weights twice: conv2d, conv2d_2, conv2d_4.
    """
    alike = defaultdict(list)
    for owner in owners:
        name, number = _counted(owner)
        alike[name].append((number, owner))
    return {
        owner: rank
        for numbered in alike.values()
        for rank, (_, owner) in enumerate(sorted(numbered))
    }


def _by_class(configs: Any, spellings: dict[str, set[str]]) -> dict[str, list[Any]]:
    """The configs of a container's elements, by what their class is called.

    Args:
        configs: The container's config.
        spellings: What the classes seen so far are called in the file: by Keras 3,
            and by Keras 2. New ones are added.
    """
    families = defaultdict(list)
    for config in configs if isinstance(configs, list) else []:
        name = _class_name(config)
        if name is None:
            continue
        if name not in spellings and len(spellings) < _CLASSES:
            words = ("[a-z]+", "[a-z0-9]+")
            spellings[name] = {_snake_case(name, word) for word in words}
        for spelling in spellings.get(name, ()):
            families[spelling].append(config)
    return families


def _class_name(config: Any) -> str | None:
    if not isinstance(config, dict):
        return None
    name, module = config.get("class_name"), config.get("module")
    if not isinstance(name, str) or len(name) > _CLASS_CHARS:
        return None
    # Operations such as `keras.ops.add` stand among the layers of a config.
    if isinstance(module, str) and ".ops." in module:
        return None
    return name


def _snake_case(name: str, rest_of_word: str) -> str:
    words = re.sub(rf"(.)([A-Z]{rest_of_word})", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()


def name_in(node: Any) -> str | None:
    """The name of an object, by its config."""
    name = _settings(node).get("name")
    return name if isinstance(name, str) and 0 < len(name) <= _NAME_CHARS else None


def _settings(node: Any) -> dict[str, Any]:
    config = node.get("config") if isinstance(node, dict) else None
    return config if isinstance(config, dict) else {}
