"""Calls of layers in a model's config, in an order of execution.

The config is untrusted, see `keras_wm.files.config.nodes`. An entry that is not
understood becomes a call of an unknown layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from keras_wm.files.config.nodes import as_list, layers_of, settings_of

_MODELS = ("Functional", "Model", "Sequential")
# Models inside models can multiply: if each of 18 levels contains the next one twice,
# there are 2 ** 18 calls.
_MOST_CALLS = 100_000
_DEEPEST = 20

# A tensor: the layer and the number of the call that makes it, and its index among
# the outputs of the call.
Tensor = tuple[str, int, int]


@dataclass(frozen=True)
class Call:
    """A call of a layer on tensors.

    Attributes:
        layer: Name of the layer, preceded by the names of the models that contain it.
        kind: Name of the layer's class.
        config: The layer's config.
        inputs: The tensors that it is called on.
        output: The tensor that it returns. Layers with several outputs are not
            understood.
        understood: Whether the call has no arguments besides these tensors.
    """

    layer: str
    kind: str
    config: dict[str, Any]
    inputs: tuple[Tensor, ...]
    output: Tensor
    understood: bool = True


@dataclass(frozen=True)
class Calls:
    """The calls of a model.

    Attributes:
        calls: The calls, each after the calls that make its inputs.
        outputs: Output tensors of the model.
        entered: Names of the input layers of nested models, each with the tensor that
            is passed to it.
    """

    calls: list[Call]
    outputs: list[Tensor]
    entered: list[tuple[str, Tensor]]


def calls_in(config: Any) -> Calls | None:
    """Returns the calls of a Functional or Sequential model and of models inside it.

    Args:
        config: Config of the model, with or without the node around its settings.

    Returns:
        `Calls`, or `None` if the config does not contain the calls.
    """
    reader = _Reader()
    try:
        outputs = reader.model(_model_settings(config), "", [], 0)
    # KeyError is raised for a tensor that no layer returns, CycleError for layers in a
    # cycle, and RecursionError for models inside themselves.
    except (NotUnderstoodError, KeyError, CycleError, RecursionError):
        return None
    return Calls(reader.calls, outputs, reader.entered)


class NotUnderstoodError(Exception):
    """The config does not contain the calls."""


def _model_settings(config: Any) -> dict[str, Any]:
    """Returns the settings of a model, given them or their node."""
    settings = settings_of(config) or config
    if not isinstance(settings, dict) or not isinstance(settings.get("layers"), list):
        raise NotUnderstoodError
    return settings


class _Reader:
    """Collects calls; see `Calls` for the attributes."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.entered: list[tuple[str, Tensor]] = []

    def model(
        self, settings: dict[str, Any], prefix: str, inputs: list[Tensor], depth: int
    ) -> list[Tensor]:
        """Adds the calls of a model and returns its outputs.

        Args:
            settings: Settings of the model.
            prefix: Names of the models that contain its layers, each with a slash.
            inputs: The tensors that it is called on; none for the outermost model.
            depth: Number of models that contain it.
        """
        if depth > _DEEPEST:
            raise NotUnderstoodError
        if "input_layers" in settings:
            return self._functional(settings, prefix, inputs, depth)
        return self._sequential(settings, prefix, inputs, depth)

    def _sequential(
        self, settings: dict[str, Any], prefix: str, inputs: list[Tensor], depth: int
    ) -> list[Tensor]:
        tensors = inputs
        for node in layers_of(settings):
            layer = read_layer(node)
            if layer.kind == "InputLayer" and tensors:
                path = f"{prefix}{layer.name}"
                self.entered += [(path, tensor) for tensor in tensors]
                continue
            tensors = self._call(layer, prefix, tensors, depth)
        return tensors

    def _functional(
        self, settings: dict[str, Any], prefix: str, inputs: list[Tensor], depth: int
    ) -> list[Tensor]:
        names = [name for name, *_ in references(settings["input_layers"])]
        passed = dict(zip(names, inputs, strict=False))
        self.entered += [(f"{prefix}{name}", tensor) for name, tensor in passed.items()]
        # From the tensors inside this model to the tensors in the result.
        tensors: dict[Tensor, Tensor] = {}
        nodes: dict[tuple[str, int], tuple[_Layer, list[Tensor], bool]] = {}
        for node in layers_of(settings):
            layer = read_layer(node)
            if layer.name in passed:
                tensors[layer.name, 0, 0] = passed[layer.name]
            elif layer.kind == "InputLayer":
                (output,) = self._call(layer, prefix, [], depth)
                tensors[layer.name, 0, 0] = output
            else:
                inbound = as_list(node.get("inbound_nodes"))
                for number, call in enumerate(inbound, first_call(layer, inbound)):
                    nodes[layer.name, number] = (layer, *_arguments(call))
        graph = {
            key: [tensor[:2] for tensor in arguments]
            for key, (_, arguments, _) in nodes.items()
        }
        for key in TopologicalSorter(graph).static_order():
            if key not in nodes:  # It is an input layer, for example.
                continue
            layer, arguments, understood = nodes[key]
            passed_on = [tensors[tensor] for tensor in arguments]
            outputs = self._call(layer, prefix, passed_on, depth, understood)
            tensors |= {(*key, index): output for index, output in enumerate(outputs)}
        outputs = references(settings.get("output_layers"))
        if not outputs:
            raise NotUnderstoodError
        return [tensors[tensor] for tensor in outputs]

    def _call(
        self,
        layer: _Layer,
        prefix: str,
        inputs: list[Tensor],
        depth: int,
        understood: bool = True,
    ) -> list[Tensor]:
        """Adds a call, or all calls of a nested model, and returns the outputs."""
        path = f"{prefix}{layer.name}"
        if layer.kind in _MODELS and understood and "layers" in layer.settings:
            settings = _model_settings(layer.settings)
            return self.model(settings, f"{path}/", inputs, depth + 1)
        if len(self.calls) >= _MOST_CALLS:
            raise NotUnderstoodError
        output = (path, len(self.calls), 0)
        call = Call(path, layer.kind, layer.settings, tuple(inputs), output, understood)
        self.calls.append(call)
        return [output]


@dataclass(frozen=True)
class _Layer:
    """A layer in a model's config."""

    name: str
    kind: str
    settings: dict[str, Any]


def read_layer(node: Any) -> _Layer:
    if not isinstance(node, dict) or not isinstance(node.get("config"), dict):
        raise NotUnderstoodError
    settings, kind = node["config"], node.get("class_name")
    # References in a functional model use the name in the node itself.
    name = node.get("name", settings.get("name"))
    if not isinstance(name, str) or not isinstance(kind, str):
        raise NotUnderstoodError
    return _Layer(name, kind, settings)


def first_call(layer: _Layer, inbound: list[Any]) -> int:
    """Returns the number of a layer's first call.

    Keras 2 counts from 1 for a model with input layers of its own, because it counts
    the construction of the model as a call.
    """
    is_keras_2 = bool(inbound) and not isinstance(inbound[0], dict)
    first = next(iter(layers_of(layer.settings)), None)
    has_inputs = isinstance(first, dict) and first.get("class_name") == "InputLayer"
    return int(is_keras_2 and layer.kind in _MODELS and has_inputs)


def references(value: Any) -> list[Tensor]:
    """Returns the tensors in `["name", 0, 0]`, or in a list or a dict of such lists."""
    if is_reference(value):
        return [(value[0], value[1], value[2])]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in as_list(value) for tensor in references(part)]


def is_reference(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(isinstance(number, int) for number in value[1:3])
    )


def _arguments(call: Any) -> tuple[list[Tensor], bool]:
    """Returns the tensors in a call, and whether it has no other argument.

    Keras 3 writes `{"args": ..., "kwargs": ...}`, Keras 2 `[["name", 0, 0, {}], ...]`.
    """
    if not isinstance(call, dict):
        others = [part[3:] for part in as_list(call) if is_reference(part)]
        return references(call), not any(any(values) for values in others)
    tensors: list[Tensor] = []
    only_tensors = _collect(call.get("args"), tensors)
    keywords = call.get("kwargs") or {}
    only_tensors &= isinstance(keywords, dict) and all(
        map(_has_no_effect, keywords.values())
    )
    return tensors, only_tensors


def _has_no_effect(value: Any) -> bool:
    """Returns whether an argument is a missing mask or a flag such as `training`."""
    if isinstance(value, (list, tuple)):
        return all(map(_has_no_effect, value))
    return value is None or isinstance(value, bool)


def _collect(value: Any, tensors: list[Tensor]) -> bool:
    """Adds the tensors in an argument; returns whether it contains nothing else."""
    if isinstance(value, (list, tuple)):
        # `all` of a generator would stop before the tensors after another value.
        return min((_collect(part, tensors) for part in value), default=True)
    if not isinstance(value, dict) or value.get("class_name") != "__keras_tensor__":
        return False
    found = references(settings_of(value).get("keras_history"))
    if len(found) != 1:
        raise NotUnderstoodError
    tensors += found
    return True
