"""Neural structural obfuscation: added neurons hide the shape of the marked layer.

"Rethinking White-Box Watermarks on Deep Learning Models under Neural Structural
Obfuscation" (Yan, Pan, Zhang, Yang; USENIX Security 2023) adds three kinds of neurons:
neurons whose output is ignored (zero neurons), groups whose outputs cancel each other
(clique neurons), and copies that share the work of a neuron (split neurons).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from keras_wm.alignment.channel_graph import Member
from keras_wm.files.config.nodes import find_layer
from keras_wm.research.attacks.architecture import (
    arrays_of,
    assign,
    config_without,
    graph_of,
)
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.datasets import Examples
from keras_wm.utils.arrays import Floats, Indices

# The neurons that the new ones of a layer are copied from, by index, and the factors of
# the outgoing weights of all its neurons, the new ones last.
_Added = tuple[Indices, Floats]


def _zero_neurons(rng: np.random.Generator, count: int, more: int) -> _Added:
    outgoing = np.append(np.ones(count), np.zeros(more))
    return rng.integers(0, count, more), outgoing


def _clique_neurons(rng: np.random.Generator, count: int, more: int) -> _Added:
    pairs = more // 2
    sources = np.repeat(rng.integers(0, count, pairs), 2)
    outgoing = np.repeat(rng.normal(size=pairs), 2) * np.tile([1.0, -1.0], pairs)
    return sources, np.append(np.ones(count), outgoing)


def _split_neurons(rng: np.random.Generator, count: int, more: int) -> _Added:
    sources = rng.permutation(count)[:more]
    shares = rng.uniform(0.2, 0.8, more)
    kept = np.ones(count)
    kept[sources] -= shares
    return sources, np.append(kept, shares)


class _Widener:
    """Adds neurons to a copy of a network.

    Attributes:
        widths: Number of neurons by the number of their channels in the network's
            graph, for all channels to which neurons can be added.
    """

    def __init__(self, model: Any, rng: np.random.Generator) -> None:
        self._model = model
        self._rng = rng
        self._graph = graph_of(model)
        self._config = model.get_config()
        self._weights = arrays_of(model)
        self.widths = {
            number: channels.count
            for number, channels in enumerate(self._graph.sets)
            if not channels.fixed
            # In a concatenation, new channels would shift those of the other layers.
            and all(
                axis.stride in (0, channels.count) for axis in self._graph.axes(number)
            )
        }

    def add(
        self, number: int, sources: Indices, outgoing: Floats, random_inputs: bool
    ) -> None:
        """Adds neurons, mixed among the existing ones.

        They get random incoming weights, or those of their sources; see `_Added`.
        """
        count = self.widths[number]
        order = np.append(np.arange(count), sources)
        mixed = self._rng.permutation(len(order))
        outgoing_axes = self._outgoing_axes(number)
        for axis in self._graph.axes(number):
            array = np.moveaxis(self._weights[axis.layer, axis.variable], axis.axis, 0)
            wider = array[axis.places(count)[:, order]]
            if axis in outgoing_axes:
                wider *= outgoing.reshape(-1, *[1] * (array.ndim - 1))
            elif random_inputs and array.ndim > 1:
                new = wider[:, count:]
                new[:] = array.std() * self._rng.normal(size=new.shape)
            wider = wider[:, mixed].reshape(-1, *array.shape[1:])
            self._weights[axis.layer, axis.variable] = np.moveaxis(wider, 0, axis.axis)
            if axis.variable == "kernel" and axis.axis == -1:
                config = self._layer_config(axis.layer)
                config["filters" if "filters" in config else "units"] = len(order)
        for layer in self._graph.sets[number].nested_inputs:
            _widen_input(self._layer_config(layer), len(order) / count)

    def _outgoing_axes(self, number: int) -> set[Member]:
        """Returns the axes on which channels are used but not also produced."""
        roles: dict[Member, set[str]] = {}
        for segment in self._graph.segments:
            if segment.set_id == number:
                for member in segment.members:
                    axis = replace(member, role="out")
                    roles.setdefault(axis, set()).add(member.role)
        return {axis for axis, axis_roles in roles.items() if axis_roles == {"in"}}

    def _layer_config(self, path: str) -> Any:
        return find_layer(self._config, path)["config"]

    def network(self) -> Any:
        """Returns the network with all added neurons."""
        model = type(self._model).from_config(
            # Layers must infer the new widths of their inputs.
            config_without(self._config, "build_config", "build_input_shape")
        )
        assign(model, self._weights)
        return model


def _widen_input(config: dict[str, Any], factor: float) -> None:
    """Multiplies the last axis of an input layer, if its size is given.

    For a flattened picture, this axis has each channel once for every pixel.
    """
    *others, size = config["batch_shape"]
    if size is not None:
        config["batch_shape"] = (*others, round(size * factor))


def _attack(
    name: str,
    title: str,
    plan: Callable[[np.random.Generator, int, int], _Added],
    random_inputs: bool = False,
) -> Attack:
    """Returns an attack that adds neurons to every layer.

    The plan is called with a random generator, the number of neurons of a layer, and
    the number to add.
    """

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        widener = _Widener(model, rng)
        for number, count in widener.widths.items():
            # An even number, because clique neurons come in pairs.
            more = 2 * round(strength * count / 2)
            widener.add(number, *plan(rng, count, more), random_inputs)
        return widener.network()

    unit = "share of neurons that are added"
    return Attack(name, title, unit, (0.05, 0.25, 0.5), change)


ZERO_NEURONS = _attack(
    "zero-neurons",
    "Adds neurons whose output is ignored.",
    _zero_neurons,
    random_inputs=True,
)
CLIQUE_NEURONS = _attack(
    "clique-neurons", "Adds pairs of neurons that cancel each other.", _clique_neurons
)
SPLIT_NEURONS = _attack(
    "split-neurons", "Splits neurons into two that share the work.", _split_neurons
)
ATTACKS = (ZERO_NEURONS, CLIQUE_NEURONS, SPLIT_NEURONS)
