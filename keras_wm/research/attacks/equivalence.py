r"""Attacks that change weights but not the function: they hide a mark at no cost.

Channels can be permuted. A channel before a batch normalization can be multiplied by
any factor except 0, and a channel after a ReLU by any positive factor, if the weights
that use it are divided by the same factor. Yan, Pan et al. (2023, arXiv 2205.00199)
combine all of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.channel_graph import ChannelGraph, Member, Segment, WeightName
from keras_wm.research.attacks.architecture import (
    arrays_of,
    assign,
    graph_of,
    layers_by_path,
)
from keras_wm.research.attacks.attack import Attack, Change
from keras_wm.research.datasets import Examples
from keras_wm.utils.arrays import Floats, Indices


class Rewriter:
    """Changes copies of a network's weights without changing its function.

    Args:
        graph: The network's channel graph.
        weights: The network's weights, named as in the graph.
        seed: Random seed of the changes.
        epsilons: The epsilon of each batch normalization, by the layer's name.

    Attributes:
        weights: The changed weights.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        weights: Mapping[WeightName, NDArray[Any]],
        seed: int,
        epsilons: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._graph = graph
        self._epsilons = epsilons
        self._rng = np.random.default_rng(seed)
        self.weights = {
            name: array.astype(np.float64) for name, array in weights.items()
        }

    def permute(self, share: float) -> None:
        """Permutes a share of the channels of each tensor."""
        for number, channels in enumerate(self._graph.sets):
            if not channels.fixed:
                order = _partial_permutation(self._rng, channels.count, share)
                self.reorder(number, order)

    def reorder(self, number: int, order: Indices) -> None:
        """Permutes the channels of one set of the graph, given by its number."""
        for axis in self._graph.axes(number):
            self._reorder(axis, order)

    def scale(self, spread: float) -> None:
        """Multiplies channels by log-normal factors of this standard deviation."""
        for segment in self._graph.segments:
            if segment.may_scale:
                exponents = spread * self._rng.normal(size=self._count(segment))
                self._multiply(segment, np.exp(exponents))

    def flip(self, share: float) -> None:
        """Flips the sign of a share of the channels of each segment."""
        for segment in self._graph.segments:
            if segment.may_flip:
                count = self._count(segment)
                signs = np.ones(count)
                signs[self._rng.permutation(count)[: round(share * count)]] = -1
                self._multiply(segment, signs)

    def _count(self, segment: Segment) -> int:
        return self._graph.sets[segment.set_id].count

    def _reorder(self, axis: Member, order: Indices) -> None:
        array = self._array(axis)
        places = axis.places(len(order))
        array[places] = array[places[:, order]]

    def _multiply(self, segment: Segment, factors: Floats) -> None:
        """Multiplies the channels of a segment, and divides where they are used."""
        # A normalization's epsilon is not multiplied with its variance. Members with
        # the role "sign" compensate for that. They need the old variance, so they come
        # first.
        powers = {"out": 1, "mean": 1, "variance": 2, "in": -1}
        for member in sorted(segment.members, key=lambda member: member.role != "sign"):
            if member.role == "sign":
                multipliers = self._epsilon_correction(member, factors)
            else:
                multipliers = factors ** powers[member.role]
            array = self._array(member)
            shape = (1, -1) + (1,) * (array.ndim - 1)
            array[member.places(len(factors))] *= multipliers.reshape(shape)

    def _epsilon_correction(self, member: Member, factors: Floats) -> Floats:
        """Returns the factors of gamma that keep a normalization's output the same.

        Because of epsilon, the divisor changes by slightly less than the factor.
        """
        variance = self.weights[member.layer, "moving_variance"]
        variance = variance[member.places(len(factors))[0]]
        epsilon = self._epsilons[member.layer]
        change = np.sqrt((factors**2 * variance + epsilon) / (variance + epsilon))
        return np.asarray(change / factors)

    def _array(self, member: Member) -> Floats:
        """Returns a view of a weight whose first axis is the member's axis."""
        array = self.weights[member.layer, member.variable]
        return np.moveaxis(array, member.axis, 0)


def _partial_permutation(rng: np.random.Generator, count: int, share: float) -> Indices:
    """Returns an order in which a share of the channels have changed places."""
    order = np.arange(count)
    moved = rng.permutation(count)[: round(share * count)]
    order[np.sort(moved)] = moved
    return order


def _rewritten(*steps: Callable[[Rewriter, float], None]) -> Change:
    """Returns a change that consists of these steps, each at the same strength."""

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        epsilons = {
            path: layer.epsilon
            for path, layer in layers_by_path(model)
            if hasattr(layer, "epsilon")
        }
        rewriter = Rewriter(graph_of(model), arrays_of(model), seed, epsilons)
        for step in steps:
            step(rewriter, strength)
        assign(model, rewriter.weights)
        return model

    return change


PERMUTATION = Attack(
    "permutation",
    "Permutes the channels of every layer.",
    "share of the channels that change places",
    (0.05, 0.25, 0.5, 1.0),
    _rewritten(Rewriter.permute),
)
SCALING = Attack(
    "scaling",
    "Multiplies channels by factors, and divides by them where the channels are used.",
    "standard deviation of the factors' logarithms",
    (0.1, 0.5, 1.0, 2.0),
    _rewritten(Rewriter.scale),
)
SIGN_FLIPS = Attack(
    "sign-flips",
    "Flips the signs of channels before batch normalizations.",
    "share of the channels",
    (0.05, 0.25, 0.5),
    _rewritten(Rewriter.flip),
)
CHAINED = Attack(
    "equivalence",
    "Permutes channels, scales them and flips their signs.",
    "share of the channels, and standard deviation of the factors' logarithms",
    (0.05, 0.25, 0.5, 1.0),
    _rewritten(Rewriter.permute, Rewriter.scale, Rewriter.flip),
)
ATTACKS = (PERMUTATION, SCALING, SIGN_FLIPS, CHAINED)
