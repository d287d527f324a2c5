"""Neurons that do nothing: hiding a mark's layer behind another shape.

"Rethinking White-Box Watermarks on Deep Learning Models under Neural Structural
Obfuscation" (Yan, Pan, Zhang, Yang; USENIX Security 2023) adds three kinds: those that
nothing heeds, those that cancel each other, and those that share another one's work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.channel_graph import Member
from keras_wm.research.attacks.architecture import config_without, node_of
from keras_wm.research.attacks.attack import Attack, Change
from keras_wm.research.attacks.equivalence import graph_of, weights_of
from keras_wm.research.datasets import Examples

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Growth:
    """Neurons that are added to a layer.

    Attributes:
        sources: The neuron that each of them is made from.
        outgoing: What the outgoing weights of all neurons are multiplied by, those of
            the further ones last.
        drawn: Whether their incoming weights are drawn, and not those of the source.
    """

    sources: NDArray[np.intp]
    outgoing: Floats
    drawn: bool = False


def _unheeded(rng: np.random.Generator, count: int, more: int) -> _Growth:
    outgoing = np.append(np.ones(count), np.zeros(more))
    return _Growth(rng.integers(0, count, more), outgoing, drawn=True)


def _cancelling(rng: np.random.Generator, count: int, more: int) -> _Growth:
    pairs = more // 2
    sources = np.repeat(rng.integers(0, count, pairs), 2)
    outgoing = np.repeat(rng.normal(size=pairs), 2) * np.tile([1.0, -1.0], pairs)
    return _Growth(sources, np.append(np.ones(count), outgoing))


def _sharing(rng: np.random.Generator, count: int, more: int) -> _Growth:
    sources = rng.permutation(count)[:more]
    parts = rng.uniform(0.2, 0.8, more)
    kept = np.ones(count)
    kept[sources] -= parts
    return _Growth(sources, np.append(kept, parts))


def _grown(grow: Callable[[np.random.Generator, int, int], _Growth]) -> Change:
    """An attack that adds a share of neurons to every layer."""

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        growing = _Growing(model)
        rng = np.random.default_rng(seed)
        for number, count in growing.widths.items():
            more = 2 * round(strength * count / 2)
            growing.add(number, grow(rng, count, more), rng)
        return growing.network()

    return change


class _Growing:
    """Adds neurons to a network.

    Args:
        model: The network, which stays as it is.

    Attributes:
        widths: How many neurons there are, by number in the network's graph, where
            more can be added.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._graph = graph_of(model)
        self._config = model.get_config()
        self._weights = {
            name: np.asarray(variable) for name, variable in weights_of(model).items()
        }
        self.widths = {
            number: channels.count
            for number, channels in enumerate(self._graph.channels)
            if not channels.fixed
            # Where another layer's stand beside them, those would move.
            and all(
                axis.stride in (0, channels.count) for axis in self._graph.axes(number)
            )
        }

    def add(self, number: int, growth: _Growth, rng: np.random.Generator) -> None:
        """Adds neurons, between those that are there."""
        count = self.widths[number]
        order = np.append(np.arange(count), growth.sources)
        mixed = rng.permutation(len(order))
        used = self._used_only(number)
        for axis in self._graph.axes(number):
            array = np.moveaxis(self._weights[axis.layer, axis.variable], axis.axis, 0)
            grown = array[axis.places(count)[:, order]]
            if axis in used:
                grown *= growth.outgoing.reshape(-1, *[1] * (array.ndim - 1))
            elif growth.drawn and array.ndim > 1:
                further = grown[:, count:]
                further[:] = array.std() * rng.normal(size=further.shape)
            grown = grown[:, mixed].reshape(-1, *array.shape[1:])
            self._weights[axis.layer, axis.variable] = np.moveaxis(grown, 0, axis.axis)
            if axis.variable == "kernel" and axis.axis == -1:
                _widen(_config_of(self._config, axis.layer), len(order))
        for layer in self._graph.channels[number].entered:
            _widen_input(_config_of(self._config, layer), len(order) / count)

    def _used_only(self, number: int) -> set[Member]:
        """The axes along which channels are used, and not made at the same time."""
        roles: dict[Member, set[str]] = {}
        for segment in self._graph.segments:
            if segment.channels == number:
                for member in segment.members:
                    roles.setdefault(replace(member, role="out"), set()).add(
                        member.role
                    )
        return {axis for axis, found in roles.items() if found == {"in"}}

    def network(self) -> Any:
        """The network with all that was added."""
        model = type(self._model).from_config(
            # Layers find out anew how wide their inputs are.
            config_without(self._config, "build_config", "build_input_shape")
        )
        for name, variable in weights_of(model).items():
            variable.assign(self._weights[name])
        return model


def _config_of(config: dict[str, Any], path: str) -> dict[str, Any]:
    """A layer's config in that of a model, by its name behind those of models."""
    for name in path.split("/"):
        config = node_of(config, name)["config"]
    return config


def _widen(config: dict[str, Any], count: int) -> None:
    """Writes a layer's new width into its config."""
    config["filters" if "filters" in config else "units"] = count


def _widen_input(config: dict[str, Any], factor: float) -> None:
    """The same for an input layer, which may have each channel for each pixel."""
    *others, before = config["batch_shape"]
    if before is not None:
        config["batch_shape"] = (*others, round(before * factor))


_SHARES = (0.05, 0.25, 0.5)
UNHEEDED = Attack(
    "zero-neurons",
    "Adds neurons that nothing heeds.",
    "share of neurons that are added",
    _SHARES,
    _grown(_unheeded),
)
CANCELLING = Attack(
    "clique-neurons",
    "Adds pairs of neurons that cancel each other.",
    "share of neurons that are added",
    _SHARES,
    _grown(_cancelling),
)
SHARING = Attack(
    "split-neurons",
    "Has neurons share the work of others.",
    "share of neurons that are added",
    _SHARES,
    _grown(_sharing),
)
