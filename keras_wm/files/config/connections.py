"""The layers that a Functional model keeps when Keras loads it.

Keras makes all layers in the config, and then keeps those between the inputs and the
outputs. Only these have weights in the file. Their order, on which the paths in the
file depend, is computed from the calls and not taken from the config.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from keras_wm.files.config.calls import (
    NotUnderstoodError,
    first_call,
    is_reference,
    read_layer,
    references,
)
from keras_wm.files.config.nodes import as_list, layers_of, settings_of

# A call of a layer: the layer's name and the number of the call.
_Key = tuple[str, int]
_CLASSES_OF_MODELS = ("Functional", "Model")


def connected_layers(settings: dict[str, Any]) -> list[Any]:
    """Returns the nodes of the layers that a model keeps, in the order of Keras.

    Args:
        settings: Settings of a model, which are not vetted.

    Returns:
        The nodes. All nodes, if the model is not Functional, or if its calls are not
        understood, so that Keras would not load it.
    """
    nodes = layers_of(settings)
    if "output_layers" not in settings:
        return nodes
    try:
        graph = _Graph(nodes, settings)
        names = graph.names_in_order()
    except (NotUnderstoodError, RecursionError):
        return nodes
    return [graph.nodes[name] for name in names]


class _Graph:
    def __init__(self, nodes: list[Any], settings: dict[str, Any]) -> None:
        self.nodes: dict[str, Any] = {}
        # The calls that make the inputs of each call.
        self._parents: dict[_Key, list[_Key]] = {}
        self._calls: defaultdict[str, list[_Key]] = defaultdict(list)
        inputs = {tensor[:2] for tensor in references(settings.get("input_layers"))}
        for node in nodes:
            layer = read_layer(node)
            inbound = as_list(node.get("inbound_nodes"))
            self.nodes[layer.name] = node
            if layer.kind == "InputLayer":
                inbound = [{}]
            for number, call in enumerate(inbound, first_call(layer, inbound)):
                key = (layer.name, number)
                # A model can begin in the middle of a graph.
                if key in inputs and layer.kind != "InputLayer":
                    continue
                self._calls[layer.name].append(key)
                self._parents[key] = _keys_in(call)
        outputs = references(settings["output_layers"])
        self._outputs = [self._call_of_output(*tensor) for tensor in outputs]
        # A number below zero is followed by Keras, but is never written by it.
        called = {key for keys in self._parents.values() for key in keys if key[1] >= 0}
        if not {*called, *self._outputs} <= self._parents.keys() | inputs:
            raise NotUnderstoodError

    def _call_of_output(self, name: str, number: int, _: int) -> _Key:
        calls = self._calls.get(name, [])
        if not calls:
            return name, number
        first = as_list(self.nodes[name].get("inbound_nodes"))[:1]
        # Keras 3 counts the construction of a nested model as a call in this place
        # only, and reads a number below zero as Python does.
        if (
            first
            and isinstance(first[0], dict)
            and self.nodes[name].get("class_name") in _CLASSES_OF_MODELS
        ):
            number -= 1
        return calls[number] if -len(calls) <= number < 0 else (name, number)

    def names_in_order(self) -> list[str]:
        """Returns the names of the connected layers, in the order of `model.layers`.

        As in `keras.src.ops.function.map_graph`: by the longest way to an output, then
        in the order of a depth-first search from the outputs.
        """
        finished, first_seen = self._search()
        depth_of_call: dict[_Key, int] = {}
        depth_of_layer: dict[str, int] = {}
        for key in reversed(finished):
            name = key[0]
            depth = max(depth_of_call.get(key, 0), depth_of_layer.get(name, 0))
            depth_of_call[key] = depth_of_layer[name] = depth
            for parent in self._known_parents(key):
                depth_of_call[parent] = max(depth + 1, depth_of_call.get(parent, 0))
        return sorted(
            depth_of_layer, key=lambda name: (-depth_of_layer[name], first_seen[name])
        )

    def _search(self) -> tuple[list[_Key], dict[str, int]]:
        """Returns the calls, each after those that it needs, and the order of layers.

        Not recursive, because a config can have calls in a row of any length.
        """
        finished: dict[_Key, None] = {}
        first_seen: dict[str, int] = {}
        started: set[_Key] = set()
        waiting = list(reversed(self._outputs))
        while waiting:
            key = waiting.pop()
            if key in finished or key not in self._parents:
                continue
            if key in started:
                finished[key] = None
                continue
            started.add(key)
            first_seen.setdefault(key[0], len(first_seen))
            waiting += [key, *reversed(self._known_parents(key))]
        return list(finished), first_seen

    def _known_parents(self, key: _Key) -> list[_Key]:
        return [parent for parent in self._parents[key] if parent in self._parents]


def _keys_in(call: Any) -> list[_Key]:
    """Returns the calls that make the inputs of a call, in the order of arguments.

    Tensors in keyword arguments are inputs, too.
    """
    keys: list[_Key] = []
    is_keras_3 = isinstance(call, dict)
    waiting = [call.get("kwargs"), call.get("args")] if is_keras_3 else [call]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            value = settings_of(value).get("keras_history")
            keys += [tensor[:2] for tensor in references(value)]
        elif isinstance(value, dict):
            waiting += [value[name] for name in sorted(value, reverse=True)]
        elif isinstance(value, list):
            if is_reference(value) and not is_keras_3:
                keys.append((value[0], value[1]))
            waiting += reversed(value)
    return keys
