"""The calls of layers in a model's config, in the order in which they can be done.

A config is what `config.json` holds, or `model.get_config()`. It may come from a file
that nobody trusts: nothing about it is taken for granted, and what is not understood
is a call of an unknown layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

_MODELS = ("Functional", "Model", "Sequential")
_MOST_CALLS = 100_000
_DEEPEST = 20

# A tensor: the call that makes it, and which of its outputs it is.
Tensor = tuple[str, int, int]


@dataclass(frozen=True)
class Call:
    """A layer called on tensors.

    Attributes:
        layer: The layer's name, with those of the models that it is in before it.
        kind: The name of the layer's class.
        config: The layer's config.
        inputs: The tensors that it is called on.
        output: The tensor that it gives; layers of several outputs are unknown ones.
        understood: Whether it is called on these tensors and nothing else.
    """

    layer: str
    kind: str
    config: dict[str, Any]
    inputs: tuple[Tensor, ...]
    output: Tensor
    understood: bool = True


@dataclass
class Calls:
    """The calls of a model.

    Attributes:
        calls: In an order in which the inputs of each are there.
        outputs: The tensors that the model gives.
        entered: The input layers of models inside it, each with a tensor that it is
            given.
    """

    calls: list[Call] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    entered: list[tuple[str, Tensor]] = field(default_factory=list)


def calls_in(config: Any) -> Calls | None:
    """The calls of a Functional or Sequential model, of models inside it too.

    Args:
        config: A model's config, with or without its class's name around it.

    Returns:
        `Calls`, or `None` for a model whose calls its config does not tell.
    """
    found = Calls()
    try:
        found.outputs = _Reader(found).model(_settings(config), "", [], 0)
    # A tensor that no layer gives, layers in a circle, layers inside each other.
    except (_NotUnderstoodError, KeyError, CycleError, RecursionError):
        return None
    return found


class _NotUnderstoodError(Exception):
    """The config does not tell the calls."""


def _settings(config: Any) -> dict[str, Any]:
    """The inner config of a model or layer, where a class's name is around it."""
    if isinstance(config, dict) and isinstance(config.get("config"), dict):
        config = config["config"]
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        raise _NotUnderstoodError
    return config


class _Reader:
    """Collects calls.

    Args:
        found: Where they go.
    """

    def __init__(self, found: Calls) -> None:
        self._calls = found.calls
        self._entered = found.entered

    def model(
        self, config: dict[str, Any], prefix: str, inputs: list[Tensor], depth: int
    ) -> list[Tensor]:
        """Adds a model's calls, and returns its outputs."""
        if depth > _DEEPEST:
            raise _NotUnderstoodError
        if "input_layers" in config:
            return self._functional(config, prefix, inputs, depth)
        return self._sequential(config, prefix, inputs, depth)

    def _sequential(
        self, config: dict[str, Any], prefix: str, inputs: list[Tensor], depth: int
    ) -> list[Tensor]:
        at = inputs
        for node in config["layers"]:
            name, kind, settings = _parts(node)
            if kind == "InputLayer" and at:
                self._entered += [(f"{prefix}{name}", one) for one in at]
                continue
            at = self._call(_Node(name, kind, settings), prefix, at, depth)
        return at

    def _functional(
        self, config: dict[str, Any], prefix: str, inputs: list[Tensor], depth: int
    ) -> list[Tensor]:
        names = [one[0] for one in _references(config["input_layers"])]
        given = dict(zip(names, inputs, strict=False)) if inputs else {}
        self._entered += [(f"{prefix}{name}", one) for name, one in given.items()]
        made: dict[Tensor, Tensor] = {}
        nodes: dict[tuple[str, int], _Node] = {}
        for node in config["layers"]:
            name, kind, settings = _parts(node)
            if name in given:
                made[name, 0, 0] = given[name]
            elif kind == "InputLayer":
                (made[name, 0, 0],) = self._call(
                    _Node(name, kind, settings), prefix, [], depth
                )
            else:
                called_on = _list(node.get("inbound_nodes"))
                first = _first_call(kind, settings, called_on)
                for number, called in enumerate(called_on, first):
                    nodes[name, number] = _Node(
                        name, kind, settings, *_arguments(called)
                    )
        for key in _in_order(nodes):
            outputs = self._call(
                nodes[key], prefix, [made[one] for one in nodes[key].inputs], depth
            )
            made |= {(*key, index): one for index, one in enumerate(outputs)}
        outputs = _references(config.get("output_layers"))
        if not outputs:
            raise _NotUnderstoodError
        return [made[one] for one in outputs]

    def _call(
        self, node: _Node, prefix: str, inputs: list[Tensor], depth: int
    ) -> list[Tensor]:
        path, settings = f"{prefix}{node.name}", node.settings
        if node.kind in _MODELS and node.understood and "layers" in settings:
            return self.model(_settings(settings), f"{path}/", inputs, depth + 1)
        if len(self._calls) >= _MOST_CALLS:
            raise _NotUnderstoodError
        output = (path, len(self._calls), 0)
        self._calls.append(
            Call(path, node.kind, settings, tuple(inputs), output, node.understood)
        )
        return [output]


@dataclass(frozen=True)
class _Node:
    """A call as a model's config tells of it."""

    name: str
    kind: str
    settings: dict[str, Any]
    inputs: list[Tensor] = field(default_factory=list)
    understood: bool = True


def _in_order(nodes: dict[tuple[str, int], _Node]) -> list[tuple[str, int]]:
    """The nodes, each behind those whose outputs it needs."""
    sorter = TopologicalSorter(
        {
            key: [(name, number) for name, number, _ in node.inputs]
            for key, node in nodes.items()
        }
    )
    return [key for key in sorter.static_order() if key in nodes]


def _parts(node: Any) -> tuple[str, str, dict[str, Any]]:
    """A layer's name, class and config."""
    if not isinstance(node, dict) or not isinstance(node.get("config"), dict):
        raise _NotUnderstoodError
    settings, kind = node["config"], node.get("class_name")
    name = node.get("name", settings.get("name"))
    if not isinstance(name, str) or not isinstance(kind, str):
        raise _NotUnderstoodError
    return name, kind, settings


def _first_call(kind: str, settings: dict[str, Any], called_on: list[Any]) -> int:
    """The number of a layer's first call.

    Keras 2 counts from 1 for a model that has its own inputs: making it is a call, too.
    """
    is_keras_2 = bool(called_on) and not isinstance(called_on[0], dict)
    layers = _list(settings.get("layers"))
    has_inputs = bool(layers) and (
        isinstance(layers[0], dict) and layers[0].get("class_name") == "InputLayer"
    )
    return int(is_keras_2 and kind in _MODELS and has_inputs)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _references(value: Any) -> list[Tensor]:
    """Of `["name", 0, 0]`, a list of such, or a dict of such, the tensors."""
    if _is_reference(value):
        return [(value[0], value[1], value[2])]
    if isinstance(value, dict):
        value = list(value.values())
    return [one for part in _list(value) for one in _references(part)]


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(isinstance(one, int) for one in value[1:3])
    )


def _arguments(called: Any) -> tuple[list[Tensor], bool]:
    """The tensors that a layer is called on, and whether they are all there is.

    Keras 3 writes `{"args": ..., "kwargs": ...}`, Keras 2 `[["name", 0, 0, {}], ...]`.
    """
    if not isinstance(called, dict):
        further = [one[3:] for one in _list(called) if _is_reference(one)]
        return _references(called), not any(any(one) for one in further)
    found: list[Tensor] = []
    plain = _collect(called.get("args"), found)
    others = called.get("kwargs") or {}
    plain &= isinstance(others, dict) and all(map(_says_nothing, others.values()))
    return found, plain


def _says_nothing(value: Any) -> bool:
    """Such as `training=False`, which is what matters here anyway, or no masks."""
    if isinstance(value, (list, tuple)):
        return all(map(_says_nothing, value))
    return value is None or isinstance(value, bool)


def _collect(value: Any, found: list[Tensor]) -> bool:
    """Finds the tensors in an argument; whether there is nothing else in it."""
    if isinstance(value, (list, tuple)):
        # Not the `all` of a generator, which stops at the first that is something else.
        return min((_collect(part, found) for part in value), default=True)
    if not isinstance(value, dict) or value.get("class_name") != "__keras_tensor__":
        return False
    settings = value.get("config")
    history = settings.get("keras_history") if isinstance(settings, dict) else None
    references = _references(history)
    if len(references) != 1:
        raise _NotUnderstoodError
    found += references
    return True
