r"""Trials of the alignment: marked networks, and suspects that must not be found.

In each trial a new key marks its own reference, so what the reference knows of the key
is the same knowledge that the test uses. The marks are written without training, by the
smallest change that raises every score to the margin, so thousands of trials are cheap.

A trial has a base network. The marked network and its siblings are branched from it:
each is the base network plus independent noise, as after different fine-tuning. The
suspects are

- unrelated networks,
- siblings, which were branched from the same base and carry no mark,
- siblings beside a mark: all their other weights are those of the marked network, whose
  next layer has learned to compensate for the mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_wm.alignment.channel_graph import ChannelGraph, WeightName
from keras_wm.research.attacks.architecture import arrays_of, graph_of
from keras_wm.research.attacks.equivalence import Rewriter
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arrays import Floats

Weights = Mapping[WeightName, Floats]

# The tested layer. It carries the mark in slot 0.
TESTED = "second"
_TESTED_KERNEL = (TESTED, "kernel")
# Standard deviation of the noise between a network and its base, in those of a weight.
_DRIFT = 0.3
# Number of random inputs for teaching the next layer to compensate for a mark.
_INPUTS = 256
# A mark of one step is exact to first order. So many steps reach every margin.
_STEPS = 4


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


@dataclass(frozen=True)
class ArrayModel:
    """A network that only has weights and a config. `verify` reads it like a model."""

    config: Any
    arrays: Weights
    name: str = "network"

    @property
    def weights(self) -> list[Variable]:
        """The weights, with the names in the config."""
        return [
            Variable(f"{layer}/{variable}", variable, array)
            for (layer, variable), array in self.arrays.items()
        ]

    def get_config(self) -> Any:
        """Returns the network's config."""
        return self.config


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
            weights[layer, "kernel"] = weights[_TESTED_KERNEL] + noise
        return weights

    def marked(self, weights: Weights, key: WatermarkKey, margin: float) -> Weights:
        """Returns weights that carry a key's mark in each marked layer."""
        marked = dict(weights)
        for layer, slot in self.slots.items():
            name = (layer, "kernel")
            marked[name] = with_margin(marked[name], key.in_slot(slot), margin)
        return marked

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


@dataclass(frozen=True)
class Trial:
    """The networks of one key.

    Attributes:
        key: The key.
        checkpoint: The network before it was marked.
        reference: The marked network.
        suspects: Networks without the mark, by their relation to the reference.
        copies: Networks with the mark, by what was done to them.
    """

    key: WatermarkKey
    checkpoint: ArrayModel
    reference: ArrayModel
    suspects: Mapping[str, ArrayModel] = field(default_factory=dict)
    copies: Mapping[str, ArrayModel] = field(default_factory=dict)


def make_trial(
    architecture: Architecture, key: WatermarkKey, margin: float, seed: int
) -> Trial:
    """Makes the networks of a trial.

    Args:
        architecture: Architecture of all networks.
        key: The key of the mark.
        margin: The smallest score of the bits of the mark.
        seed: Random seed of all weights.
    """
    rng = np.random.default_rng(seed)
    base = architecture.draw(rng)
    before = architecture.branch(base, rng)
    marked = architecture.marked(before, key, margin)
    if not architecture.is_tied:
        marked = _compensated(before, marked, rng)
    sibling = architecture.branch(base, rng)
    beside = {**marked, _TESTED_KERNEL: sibling[_TESTED_KERNEL]}
    tuned = architecture.branch(marked, rng)

    def rearranged(weights: Weights) -> ArrayModel:
        return architecture.model(architecture.rearranged(weights, seed))

    return Trial(
        key,
        architecture.model(before),
        architecture.model(marked),
        {
            "unrelated": rearranged(architecture.draw(rng)),
            "sibling": architecture.model(sibling),
            "rearranged sibling": rearranged(sibling),
            "sibling beside a mark": rearranged(beside),
        },
        {"rearranged": rearranged(marked), "trained and rearranged": rearranged(tuned)},
    )


def _compensated(before: Weights, marked: Weights, rng: np.random.Generator) -> Weights:
    """Returns a marked chain whose next layer compensates for the mark.

    The layer behind the tested one gives, as nearly as possible, the outputs that it
    gave before (ridge regression). So it knows the mark, as after training beside it.
    """
    inputs = rng.normal(size=(_INPUTS, len(before["first", "kernel"])))
    was, now = (_hidden(weights, inputs) for weights in (before, marked))
    kernel = before["third", "kernel"]
    ridge = 0.01 * np.trace(now.T @ now) / len(kernel) * np.eye(len(kernel))
    step = np.linalg.solve(now.T @ now + ridge, now.T @ ((was - now) @ kernel))
    return {**marked, ("third", "kernel"): kernel + step}


def _hidden(weights: Weights, values: Floats) -> Floats:
    """Returns the outputs of the tested layer of a chain."""
    for layer in ("first", TESTED):
        values = values @ weights[layer, "kernel"] + weights[layer, "bias"]
        values = np.maximum(values, 0)
    return values


def with_margin(kernel: Floats, key: WatermarkKey, margin: float) -> Floats:
    r"""Returns a kernel with a key's mark, written by the smallest change.

    The score of bit j is \(z_j = s_j x_j \cdot W a_j / \lVert W a_j \rVert\). For the
    bits below the margin, steps D of the least norm solve
    \(s_j x_j \cdot D a_j = (m - z_j) \lVert W a_j \rVert\).

    Args:
        kernel: The kernel, filters last.
        key: The key of the mark.
        margin: The margin m.
    """
    mark = key.for_shape(kernel.shape)
    rows = mark.signs[:, None] * mark.matrix / np.reshape(mark.spread, (-1, 1))
    filters = mark.filter_weights[np.arange(key.bits) % key.groups]
    flat = kernel.reshape(mark.size, mark.count)
    for _ in range(_STEPS):
        read = flat @ filters.T
        norms = np.linalg.norm(read, axis=0)
        missing = margin * norms - np.einsum("tm,mt->t", rows, read)
        short = missing > 0
        products = (rows[short] @ rows[short].T) * (filters[short] @ filters[short].T)
        factors = np.linalg.lstsq(products, missing[short], rcond=None)[0]
        flat = flat + rows[short].T @ (factors[:, None] * filters[short])
    result: Floats = flat.reshape(kernel.shape)
    return result
