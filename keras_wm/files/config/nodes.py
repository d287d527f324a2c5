"""Nodes of a model's config: the entries of its layers and of other Keras objects.

A config is the content of `config.json`, or `model.get_config()`. A node is the entry
of one object in it: `{"class_name": "Dense", "config": {"name": "d1", ...}, ...}`. An
untrusted file can put any JSON in its place. The functions here therefore check
everything that they rely on, unless they require a trusted config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_NAME_CHARS = 1024


def settings_of(node: Any) -> dict[str, Any]:
    """Returns the settings of a node, its own `"config"`; empty if it has none."""
    settings = node.get("config") if isinstance(node, dict) else None
    return settings if isinstance(settings, dict) else {}


def name_of(node: Any) -> str | None:
    """Returns the name in the settings of a node, or `None` without a valid name."""
    name = settings_of(node).get("name")
    return name if isinstance(name, str) and 0 < len(name) <= _NAME_CHARS else None


def layers_of(settings: dict[str, Any]) -> list[Any]:
    """Returns the nodes of a model's layers, in the order of its settings."""
    return as_list(settings.get("layers"))


def as_list(value: Any) -> list[Any]:
    """Returns a list unchanged, and an empty list for any other value."""
    return value if isinstance(value, list) else []


def iterate_nodes(config: Any) -> Iterator[dict[str, Any]]:
    """Iterates over all nodes with settings, in the model and in models inside it.

    The iteration does not recurse, so a deeply nested config is not an error. It visits
    each value once, so its time is bounded by `Limits.json_values`.
    """
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("config"), dict):
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def find_layer(settings: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns the node of a layer.

    Args:
        settings: Settings of a model that is trusted, `model.get_config()`.
        path: Name of the layer, preceded by the names of the models that contain it;
            empty for the model itself.

    Returns:
        The node, which is not copied: changes of it are changes of the config.

    Raises:
        KeyError: If there is no such layer.
    """
    node: dict[str, Any] = {"config": settings}
    for name in filter(None, path.split("/")):
        nodes = layers_of(settings_of(node))
        try:
            node = next(node for node in nodes if name_of(node) == name)
        except StopIteration:
            raise KeyError(path) from None
    return node


def rewrite(config: Any, change: Callable[[Any], Any]) -> Any:
    """Returns a copy of a trusted config with changed values.

    Args:
        config: The config, or a part of it.
        change: Returns the replacement of a value, or the value itself. It is called
            with the config, then with every member of the result, and so forth.
    """
    config = change(config)
    if isinstance(config, dict):
        return {key: rewrite(value, change) for key, value in config.items()}
    if type(config) in (list, tuple):
        return type(config)(rewrite(value, change) for value in config)
    return config
