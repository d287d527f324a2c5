"""The owner's own network, by which a suspect is aligned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_wm.alignment.channel_graph import ChannelGraph
from keras_wm.alignment.tracing import channel_graph
from keras_wm.alignment.variable_names import by_variable
from keras_wm.errors import AlignmentError
from keras_wm.files import Kernel, ModelFile
from keras_wm.files.config.calls import Call, calls_in
from keras_wm.utils.arrays import Floats

WeightName = tuple[str, str]


@dataclass(frozen=True)
class Reference:
    """The owner's network: how its layers are connected, and its weights.

    Attributes:
        source: Where it comes from.
        config: The model's config.
        layers: A call of each layer that has weights, by the layer's name, in the
            order of the calls.
        shapes: The shapes of their weights.
        graph: Its channels.
        weights: What its weights are, by layer and variable.
        values: What is in them.
    """

    source: str
    config: Any
    layers: dict[str, Call]
    shapes: dict[str, dict[str, tuple[int, ...]]]
    graph: ChannelGraph
    weights: dict[WeightName, Kernel]
    values: dict[WeightName, Floats]

    @property
    def kernels(self) -> list[Kernel]:
        """The weights that can carry a mark and may be aligned."""
        return [one for one in self.weights.values() if len(one.shape) > 1]


def read_reference(opened: ModelFile) -> Reference:
    """Reads the owner's network.

    Args:
        opened: A model that comes with its config.

    Returns:
        A `Reference`.

    Raises:
        AlignmentError: If it does not tell how its layers are connected.
        ModelFileError: If it cannot be read.
    """
    config = opened.config()
    calls = calls_in(config)
    if calls is None:
        raise AlignmentError(
            "Expected a reference that tells how its layers are connected: a .keras "
            "file, an .h5 file of a whole model, or a model in memory, Functional or "
            f"Sequential. Received: {opened.path} ({opened.format})"
        )
    stored = by_layer(opened.weights)
    layers: dict[str, Call] = {}
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    weights: dict[WeightName, Kernel] = {}
    for call in calls.calls:
        arrays = stored.get(call.layer, [])
        named = by_variable(call.kind, call.config, arrays)
        for variable, (first, *_) in named.items():
            layers.setdefault(call.layer, call)
            shapes.setdefault(call.layer, {})[variable] = first.shape
            name = (call.layer, variable)
            weights[name] = replace(first, layer=call.layer, variable=variable)
    graph = channel_graph(config, shapes)
    if graph is None or not any(len(one.shape) > 1 for one in weights.values()):
        raise AlignmentError(
            "Expected a reference with convolutions or dense layers whose weights are "
            f"in the file under the names in its config. Received: {opened.path}"
        )
    values = read_all(weights)
    return Reference(opened.path, config, layers, shapes, graph, weights, values)


def by_layer(weights: Iterable[Kernel]) -> dict[str, list[Kernel]]:
    """Weights by the name of their layer, in their order."""
    found: dict[str, list[Kernel]] = {}
    for one in weights:
        found.setdefault(one.layer, []).append(one)
    return found


def read_all(weights: dict[WeightName, Kernel]) -> dict[WeightName, Floats]:
    """Reads weights, each divided by the largest in it.

    What they are compared by does not depend on their scale, and no square overflows.

    Raises:
        AlignmentError: If one is not finite.
        ModelFileError: If one cannot be read.
    """
    found: dict[WeightName, Floats] = {}
    for name, one in weights.items():
        values = one.read().astype(np.float64)
        largest = float(np.abs(values).max())
        if not np.isfinite(largest):
            raise AlignmentError(f"{one.name} holds NaN or infinite weights.")
        found[name] = values / (largest or 1.0)
    return found
