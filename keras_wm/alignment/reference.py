"""The reference model: the owner's network that a suspect is aligned with.

It is the marked network, or a checkpoint of it from before it was marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_wm.alignment.channel_graph import ChannelGraph, WeightName
from keras_wm.alignment.tracing import (
    DEPTHWISE_LAYERS,
    KERNEL_LAYERS,
    trace_channels,
)
from keras_wm.errors import AlignmentError
from keras_wm.files import Kernel, ModelFile
from keras_wm.files.config.calls import Call, calls_in
from keras_wm.utils.arrays import Floats


@dataclass(frozen=True)
class Reference:
    """The reference model's architecture and weights.

    Attributes:
        source: Name of the model's source, for messages.
        config: The model's config.
        layers: The first call of each layer with weights, by the layer's name, in the
            order of the calls.
        graph: The channel graph.
        weights: Description of each weight.
        values: Values of each weight, see `read_weights`.
    """

    source: str
    config: Any
    layers: dict[str, Call]
    graph: ChannelGraph
    weights: dict[WeightName, Kernel]
    values: dict[WeightName, Floats]

    @property
    def kernels(self) -> list[Kernel]:
        """The weights that can carry a mark and can be aligned."""
        return [weight for weight in self.weights.values() if len(weight.shape) > 1]


def read_reference(model: ModelFile) -> Reference:
    """Reads the reference model.

    Args:
        model: An open model file with a config.

    Returns:
        A `Reference`.

    Raises:
        AlignmentError: If the config does not show how the layers are connected.
        ModelFileError: If the file cannot be read.
    """
    described = _described(model)
    return Reference(model.path, *described, read_weights(described[-1]))


def check_alignable(model: ModelFile) -> None:
    """Raises AlignmentError if no suspect could be aligned with a network.

    Reads none of its weights.
    """
    _described(model)


_Description = tuple[Any, dict[str, Call], ChannelGraph, dict[WeightName, Kernel]]


def _described(model: ModelFile) -> _Description:
    """Returns the config, layers, channel graph and weights of a `Reference`."""
    config = model.config()
    calls = calls_in(config)
    if calls is None:
        raise AlignmentError(
            "Expected a network to align with whose config shows how its layers are "
            "connected: a .keras file, an .h5 file of a whole model, or a model in "
            "memory, Functional or Sequential. "
            f"Received: {model.path} ({model.format})"
        )
    stored = group_by_layer(model.weights)
    layers: dict[str, Call] = {}
    weights: dict[WeightName, Kernel] = {}
    for call in calls.calls:
        named = arrays_by_variable(call, stored.get(call.layer, []))
        for variable, (first, *_) in named.items():
            layers.setdefault(call.layer, call)
            name = (call.layer, variable)
            weights[name] = replace(first, layer=call.layer, variable=variable)
    shapes = {name: weight.shape for name, weight in weights.items()}
    graph = trace_channels(config, shapes)
    if graph is None or not any(len(shape) > 1 for shape in shapes.values()):
        raise AlignmentError(
            "Expected a network to align with that has convolutions or dense layers "
            f"stored under the names in its config. Received: {model.path}"
        )
    return config, layers, graph, weights


def group_by_layer(weights: Iterable[Kernel]) -> dict[str, list[Kernel]]:
    """Returns the weights of each layer, in the same order."""
    groups: dict[str, list[Kernel]] = {}
    for weight in weights:
        groups.setdefault(weight.layer, []).append(weight)
    return groups


def arrays_by_variable(call: Call, arrays: Sequence[Kernel]) -> dict[str, list[Kernel]]:
    """Returns the arrays of a layer by the names of its variables in Keras 3.

    Files of Keras 3 number the variables, and Keras 2 used other names for some of
    them.

    Args:
        call: A call of the layer.
        arrays: The stored arrays of the layer.

    Returns:
        The arrays of each variable: usually one, several if a stored array can be read
        in several ways. Empty for layers whose channels cannot be followed.
    """
    named: dict[str, list[Kernel]] = {}
    if call.kind in KERNEL_LAYERS | DEPTHWISE_LAYERS:
        for array in arrays:
            variable = "kernel" if len(array.shape) > 1 else "bias"
            named.setdefault(variable, []).append(array)
        # Several arrays must be readings of the same variable, not two kernels.
        if len({array.variable for array in named.get("kernel", [])}) > 1:
            return {}
    elif call.kind == "BatchNormalization":
        names = _normalization_names(call.config, [array.variable for array in arrays])
        for array in arrays if names else ():
            named.setdefault(names[array.variable], []).append(array)
    return named


def _normalization_names(
    config: Mapping[str, Any], stored: Sequence[str]
) -> dict[str, str]:
    """Returns the names of a batch normalization's variables, by their stored names.

    Returns an empty dictionary if the number of variables does not fit the config.
    """
    if not all(map(str.isdecimal, stored)):
        return {name: name for name in stored}
    names = [
        *(["gamma"] if config.get("scale", True) else []),
        *(["beta"] if config.get("center", True) else []),
        *("moving_mean", "moving_variance"),
    ]
    numbers = sorted(stored, key=int)
    return dict(zip(numbers, names, strict=True)) if len(numbers) == len(names) else {}


def read_weights(weights: dict[WeightName, Kernel]) -> dict[WeightName, Floats]:
    """Reads weights and divides each of them by its largest absolute value.

    Comparisons do not depend on the scale, and with values of at most 1 no square
    overflows.

    Args:
        weights: The weights to read.

    Returns:
        The values by the same names.

    Raises:
        AlignmentError: If a weight is not finite.
        ModelFileError: If a weight cannot be read.
    """
    arrays: dict[WeightName, Floats] = {}
    for name, weight in weights.items():
        values = weight.read().astype(np.float64)
        largest = float(np.abs(values).max())
        if not np.isfinite(largest):
            raise AlignmentError(f"{weight.name} holds NaN or infinite weights.")
        arrays[name] = values / (largest or 1.0)
    return arrays
