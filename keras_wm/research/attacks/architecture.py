"""Helpers to inspect and rebuild a network: its layers, weights, channels and head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.channel_graph import ChannelGraph
from keras_wm.alignment.tracing import trace_channels
from keras_wm.embedding.marked_layers import is_built, sublayers
from keras_wm.files.config.nodes import rewrite
from keras_wm.research.attacks.attack import kernels_by_layer

# The path of a layer, and the name of a weight in that layer.
WeightName = tuple[str, str]


def fresh_network(model: Any) -> Any:
    """Returns a network of the same architecture with newly initialised weights.

    The initializers' fixed seeds are dropped, because they would reproduce the initial
    weights of the owner's network.

    Raises:
        ValueError: If the model's config does not describe all of its layers.
    """
    network = type(model).from_config(config_without(model.get_config(), "seed"))
    if not is_built(network):
        raise ValueError(
            "Expected a Functional or Sequential model, whose config describes its "
            f"layers. Received: {type(model).__name__}"
        )
    return network


def reinitialize(model: Any, layers: Collection[Any]) -> None:
    """Initialises the weights of some layers of a model again."""
    chosen = {id(inner) for layer in layers for inner in sublayers(layer)}
    pairs = zip(sublayers(model), sublayers(fresh_network(model)), strict=True)
    for layer, fresh_layer in pairs:
        if id(layer) in chosen:
            layer.set_weights(fresh_layer.get_weights())


def head_of(model: Any) -> Any:
    """Returns a classifier's head: the last layer with a kernel.

    Raises:
        ValueError: If that layer does not have one filter for each output.
    """
    pairs = kernels_by_layer(model)
    if pairs and pairs[-1][1].shape[-1] == model.output_shape[-1]:
        return pairs[-1][0]
    last = f"{pairs[-1][0].name!r}" if pairs else "none"
    raise ValueError(
        "Expected a head: a last layer with a kernel that has one filter for each "
        f"output. Received: {model.name!r}, whose outputs have the shape "
        f"{model.output_shape} and whose last layer with a kernel is {last}."
    )


def layers_by_path(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each layer with its path; a layer in a nested model is `"model/layer"`."""
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if hasattr(layer, "layers"):
            yield from layers_by_path(layer, f"{path}/")
        else:
            yield path, layer


def weights_of(model: Any) -> dict[WeightName, Any]:
    """Returns a network's variables by the path of their layer and their name.

    A second variable of the same name, as in attention, is named `"kernel 2"`.
    """
    variables: dict[WeightName, Any] = {}
    for path, layer in layers_by_path(model):
        counts: Counter[str] = Counter()
        for variable in layer.weights:
            counts[variable.name] += 1
            number = counts[variable.name]
            name = variable.name if number == 1 else f"{variable.name} {number}"
            variables[path, name] = variable
    return variables


def arrays_of(model: Any) -> dict[WeightName, NDArray[Any]]:
    """Returns a network's weights as arrays, named as by `weights_of`."""
    return {name: np.asarray(variable) for name, variable in weights_of(model).items()}


def assign(model: Any, arrays: Mapping[WeightName, Any]) -> None:
    """Sets every weight of a network, given values named as by `weights_of`."""
    for name, variable in weights_of(model).items():
        variable.assign(arrays[name])


def graph_of(model: Any) -> ChannelGraph:
    """Returns the channel graph of a network in memory.

    Raises:
        ValueError: If the model's config does not describe its connections.
    """
    shapes = {
        name: tuple(variable.shape) for name, variable in weights_of(model).items()
    }
    graph = trace_channels(model.get_config(), shapes)
    if graph is None:
        raise ValueError(
            "Expected a Functional or Sequential model, whose config describes how "
            f"its layers are connected. Received: {type(model).__name__}"
        )
    return graph


def config_without(config: Any, *names: str) -> Any:
    """Returns a copy of a config without the named settings, at any depth."""

    def without(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        return {name: value for name, value in part.items() if name not in names}

    return rewrite(config, without)
