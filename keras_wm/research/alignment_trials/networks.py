"""Small networks in NumPy, with the interface that `verify` needs of a Keras model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_wm.alignment.channel_graph import ChannelGraph, WeightName
from keras_wm.research.attacks.architecture import arrays_of, graph_of
from keras_wm.research.attacks.equivalence import Rewriter
from keras_wm.utils.arrays import Floats

Weights = Mapping[WeightName, Floats]

# The tested layer. It carries the mark in slot 0.
TESTED = "second"
TESTED_KERNEL = (TESTED, "kernel")
# Standard deviation of the noise between a network and its base, in those of a weight.
_DRIFT = 0.3


@dataclass(frozen=True)
class Variable:
    """A weight of an `ArrayModel`, with the interface of a Keras variable."""

    path: str
    name: str
    values: Floats
    dtype: str = "float64"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.values.shape

    def numpy(self) -> Floats:
        """Returns the weight."""
        return self.values


class ArrayModel:
    """A network that only has weights and a config. `verify` reads it like a model.

    Args:
        config: Config of the network.
        arrays: Weights of the network, by their names in the config.
    """

    def __init__(self, config: Any, arrays: Weights) -> None:
        self.name = "network"
        self.arrays = arrays
        self.weights: Sequence[Any] = [
            Variable(f"{layer}/{variable}", variable, array)
            for (layer, variable), array in arrays.items()
        ]
        self._config = config

    def get_config(self) -> Any:
        """Returns the network's config."""
        return self._config


@dataclass(frozen=True)
class Architecture:
    """A small network whose hidden channels can be permuted and scaled.

    Attributes:
        config: Config of the network.
        graph: Channel graph of the network.
        shapes: Shapes of its weights.
        slots: Slot of the mark in each marked layer.
        is_tied: Whether all marked layers have similar weights in every network.
    """

    config: Any
    graph: ChannelGraph
    shapes: Mapping[WeightName, tuple[int, ...]]
    slots: Mapping[str, int]
    is_tied: bool = False

    @classmethod
    def of(
        cls, model: Any, slots: Mapping[str, int], is_tied: bool = False
    ) -> Architecture:
        """Returns the architecture of a Keras model."""
        shapes = {name: array.shape for name, array in arrays_of(model).items()}
        return cls(model.get_config(), graph_of(model), shapes, slots, is_tied)

    def draw(self, rng: np.random.Generator) -> Weights:
        """Returns new random weights."""
        weights = {
            name: rng.normal(size=shape) / np.sqrt(shape[0])
            if len(shape) > 1
            # Biases are small in a trained network.
            else 0.1 * rng.normal(size=shape)
            for name, shape in self.shapes.items()
        }
        return self._tied(weights, rng)

    def branch(self, base: Weights, rng: np.random.Generator) -> Weights:
        """Returns a base network after a training of its own."""
        weights = {
            name: array + _DRIFT * array.std() * rng.normal(size=array.shape)
            for name, array in base.items()
        }
        return self._tied(weights, rng)

    def _tied(
        self, weights: dict[WeightName, Floats], rng: np.random.Generator
    ) -> Weights:
        """Makes the marked layers similar, if the architecture says so."""
        for layer in self.slots if self.is_tied else ():
            own = weights[layer, "kernel"]
            noise = _DRIFT * own.std() * rng.normal(size=own.shape)
            weights[layer, "kernel"] = weights[TESTED_KERNEL] + noise
        return weights

    def rearranged(self, weights: Weights, seed: int) -> Weights:
        """Returns weights with permuted and scaled channels, for the same function."""
        rewriter = Rewriter(self.graph, weights, seed)
        rewriter.permute(1.0)
        rewriter.scale(1.0)
        rewriter.flip(0.5)
        return rewriter.weights

    def model(self, weights: Weights) -> ArrayModel:
        """Returns a model that `verify` can read."""
        return ArrayModel(self.config, weights)


def chain(width: int, slots: Mapping[str, int]) -> Architecture:
    """Returns a chain of four dense layers, each with a kernel of the same shape.

    Args:
        width: Number of neurons of each layer.
        slots: Slot of the mark in each marked layer.
    """
    layers = [
        keras.layers.Dense(width, "relu", name=name)
        for name in ("first", TESTED, "third")
    ]
    head = keras.layers.Dense(width, name="last")
    model = keras.Sequential([keras.Input((width,)), *layers, head], name="chain")
    return Architecture.of(model, slots)


def tied_layers(width: int) -> Architecture:
    """Returns a residual network whose two marked layers have similar weights.

    Both carry the mark in the same slot. Their channels are those of the residual path,
    so an order that makes one layer similar to a mark does the same for the other.
    """
    inputs = keras.Input((width,))
    x = keras.layers.Dense(width, "relu", name="first")(inputs)
    for name in (TESTED, "third"):
        x = keras.layers.Add()([x, keras.layers.Dense(width, "relu", name=name)(x)])
    outputs = keras.layers.Dense(width, name="last")(x)
    model = keras.Model(inputs, outputs, name="residual")
    return Architecture.of(model, {TESTED: 0, "third": 0}, is_tied=True)
