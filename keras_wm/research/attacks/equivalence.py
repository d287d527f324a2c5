r"""Other weights for the same function: hiding a mark at no cost.

Channels may change places; in front of a batch normalization they may be multiplied by
anything but 0, behind a ReLU by anything positive, if what follows is divided by it.
Yan, Pan et al. (2023, arXiv 2205.00199) chain all of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.channel_graph import ChannelGraph, Member, Segment
from keras_wm.alignment.tracing import channel_graph
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.datasets import Examples

Floats = NDArray[np.float64]
# By layer and by the weight's name in it.
Weights = dict[tuple[str, str], Floats]
Draw = Callable[[np.random.Generator, int], Floats]
Indices = NDArray[np.intp]


def weights_of(model: Any) -> dict[tuple[str, str], Any]:
    """A network's variables by layer, those in models inside as `"model/layer"`.

    Of several with one name in a layer, as in attention, the second is `"kernel 2"`.
    """
    return dict(_variables(model, ""))


def _variables(model: Any, prefix: str) -> Iterator[tuple[tuple[str, str], Any]]:
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if hasattr(layer, "layers"):
            yield from _variables(layer, f"{path}/")
        else:
            seen: Counter[str] = Counter()
            for variable in layer.weights:
                seen[variable.name] += 1
                number = seen[variable.name]
                name = variable.name if number == 1 else f"{variable.name} {number}"
                yield (path, name), variable


def graph_of(model: Any) -> ChannelGraph:
    """Where the channels of a network in memory go.

    Raises:
        ValueError: If its config does not tell.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for (layer, name), variable in weights_of(model).items():
        shapes.setdefault(layer, {})[name] = tuple(variable.shape)
    graph = channel_graph(model.get_config(), shapes)
    if graph is None:
        raise ValueError(
            "Expected a Functional or Sequential model, whose config tells how its "
            f"layers are connected. Received: {type(model).__name__}"
        )
    return graph


class _Rewriting:
    """Writes a network's weights anew so that it computes the same.

    Args:
        model: The network; its weights are changed.
        seed: Of what is drawn.
    """

    def __init__(self, model: Any, seed: int) -> None:
        self._variables = weights_of(model)
        self._epsilons = dict(_epsilons(model, ""))
        self._graph = graph_of(model)
        self._rng = np.random.default_rng(seed)
        self._weights: Weights = {
            name: np.asarray(variable, np.float64)
            for name, variable in self._variables.items()
        }

    def permute(self, share: float) -> None:
        """Reorders a share of the channels of each set."""
        for number, channels in enumerate(self._graph.channels):
            if not channels.fixed:
                order = _order(self._rng, channels.count, share)
                for axis in self._graph.axes(number):
                    self._reorder(axis, order)

    def scale(self, spread: float) -> None:
        """Multiplies channels by log-normal factors of that standard deviation."""
        for segment in self._graph.segments:
            if segment.may_scale:
                exponents = spread * self._rng.normal(size=self._count(segment))
                self._multiply(segment, np.exp(exponents))

    def flip(self, share: float) -> None:
        """Turns the sign of a share of the channels of each stretch."""
        for segment in self._graph.segments:
            if segment.may_flip:
                count = self._count(segment)
                signs = np.ones(count)
                signs[self._rng.permutation(count)[: round(share * count)]] = -1
                self._multiply(segment, signs)

    def write(self) -> None:
        """Puts the weights into the network."""
        for name, variable in self._variables.items():
            variable.assign(self._weights[name])

    def _count(self, segment: Segment) -> int:
        return self._graph.channels[segment.channels].count

    def _reorder(self, axis: Member, order: Indices) -> None:
        array = self._array(axis)
        places = axis.places(len(order))
        array[places] = array[places[:, order]]

    def _multiply(self, segment: Segment, factors: Floats) -> None:
        """Multiplies a stretch of channels, and divides where they are used."""
        # Normalization's own epsilon is not multiplied, and has to be made good
        # while the variance is still the old one.
        signs = [one for one in segment.members if one.role == "sign"]
        others = [one for one in segment.members if one.role != "sign"]
        for member in signs:
            self._change(member, self._made_good(member, segment, factors))
        powers = {"out": 1, "mean": 1, "variance": 2, "in": -1}
        for member in others:
            self._change(member, factors ** powers[member.role])

    def _change(self, member: Member, factors: Floats) -> None:
        array = self._array(member)
        places = member.places(len(factors))
        shape = (1, -1) + (1,) * (array.ndim - 1)
        array[places] *= factors.reshape(shape)

    def _made_good(self, member: Member, segment: Segment, factors: Floats) -> Floats:
        variance = self._weights[member.layer, "moving_variance"]
        variance = variance[member.places(len(factors))[0]]
        epsilon = self._epsilons[member.layer]
        changed = np.sqrt((factors**2 * variance + epsilon) / (variance + epsilon))
        made_good: Floats = changed / factors
        return made_good

    def _array(self, member: Member) -> Floats:
        """A view of a weight with the member's axis in front."""
        array = self._weights[member.layer, member.variable]
        return np.moveaxis(array, member.axis, 0)


def _epsilons(model: Any, prefix: str) -> Iterator[tuple[str, float]]:
    for layer in model.layers:
        path = f"{prefix}{layer.name}"
        if hasattr(layer, "layers"):
            yield from _epsilons(layer, f"{path}/")
        elif hasattr(layer, "epsilon"):
            yield path, layer.epsilon


def _order(rng: np.random.Generator, count: int, share: float) -> Indices:
    """An order in which a share of the channels have changed places."""
    order = np.arange(count)
    moved = rng.permutation(count)[: round(share * count)]
    order[np.sort(moved)] = moved
    return order


def _rewritten(
    *steps: str,
) -> Callable[[Any, Examples | None, float, int], Any]:
    """An attack that does these steps, each at the same strength."""

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        rewriting = _Rewriting(model, seed)
        for step in steps:
            getattr(rewriting, step)(strength)
        rewriting.write()
        return model

    return change


PERMUTATION = Attack(
    "permutation",
    "Reorders the channels of every layer.",
    "share of the channels that change places",
    (0.05, 0.25, 0.5, 1.0),
    _rewritten("permute"),
)
SCALING = Attack(
    "scaling",
    "Multiplies channels, and divides by as much where they are used.",
    "standard deviation of the factors' logarithms",
    (0.1, 0.5, 1.0, 2.0),
    _rewritten("scale"),
)
SIGN_FLIPS = Attack(
    "sign-flips",
    "Turns the signs of channels in front of batch normalizations.",
    "share of the channels",
    (0.05, 0.25, 0.5),
    _rewritten("flip"),
)
CHAINED = Attack(
    "equivalence",
    "Reorders channels, scales them and turns their signs.",
    "share of the channels, and standard deviation of the factors' logarithms",
    (0.05, 0.25, 0.5, 1.0),
    _rewritten("permute", "scale", "flip"),
)
