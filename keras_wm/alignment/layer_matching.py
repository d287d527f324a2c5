"""Which weights of a suspect stand in the place of which of the owner's.

Names may have been changed, and layers wrapped in other models. So there may be several
answers: by the names, by where a file has the weights, and by the order of the layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from keras_wm.alignment.reference import Reference, WeightName, by_layer
from keras_wm.alignment.variable_names import by_variable
from keras_wm.errors import AlignmentError
from keras_wm.files import Kernel, ModelFile
from keras_wm.files.config.calls import calls_in
from keras_wm.files.config.layer_names import is_list, layer_name, nodes_in_config
from keras_wm.files.config.nodes import name_of

# So far may a layer be widened. It bounds what a suspect may ask of memory and time.
_WIDEST = 4
_MOST_LAYERS = 4
_VARIABLES = "/vars/"

MatchedWeights = dict[WeightName, Kernel]
# The arrays of a suspect's layer, by the owner's layer.
Pairs = Mapping[str, Sequence[Kernel]]


def match_layers(reference: Reference, suspect: ModelFile) -> list[MatchedWeights]:
    """The suspect's weights by the owner's names, in every way that makes sense.

    Args:
        reference: The owner's network.
        suspect: The other one; nothing about it is taken for granted.

    Returns:
        One answer or more, each with the kernels of half the owner's layers at least.

    Raises:
        AlignmentError: If there is none.
    """
    pairing = _LayerMatcher(reference, suspect)
    found: list[MatchedWeights] = []
    most = 0
    for pairs in pairing.every():
        weights = pairing.weights(pairs)
        paired = sum(len(one.shape) > 1 for one in weights.values())
        most = max(most, paired)
        if 2 * paired >= len(reference.kernels) and weights not in found:
            found.append(weights)
    if not found:
        raise AlignmentError(
            f"Expected a network of the owner's architecture, with kernels of "
            f"{len(reference.kernels)} layers that fit those of {reference.source}. "
            f"Received one in which {most} do, by their names or in their order."
        )
    return found


class _LayerMatcher:
    """Finds a suspect's layers for the owner's.

    Args:
        reference: The owner's network.
        suspect: The other one.
    """

    def __init__(self, reference: Reference, suspect: ModelFile) -> None:
        self._reference = reference
        self._suspect = suspect
        self._stored = by_layer(suspect.weights)
        self._parts = reference.graph.parts()

    def every(self) -> Iterator[Pairs]:
        """The pairs that there are in every way."""
        by_name = self._by_name()
        yield by_name
        by_place = self._by_place()
        yield by_place
        calls = calls_in(self._suspect.config())
        if calls is not None:
            called = {call.layer: call for call in calls.calls}
            names = [
                name
                for name, call in called.items()
                if by_variable(call.kind, call.config, self._stored.get(name, []))
            ]
            if names != list(self._reference.layers):
                yield self._by_order(names)
        elif max(len(by_name), len(by_place)) < len(self._reference.layers):
            yield self._by_order(list(self._stored))

    def weights(self, pairs: Pairs) -> MatchedWeights:
        """The arrays of pairs by the owner's names, without layers that do not fit."""
        found: MatchedWeights = {}
        for layer, arrays in pairs.items():
            found |= self._fitting(layer, arrays)
        return found

    def _by_name(self) -> Pairs:
        found = {}
        theirs = _by_last(self._stored)
        owners = _by_last(self._reference.layers)
        for layer in self._reference.layers:
            last = layer.rpartition("/")[2]
            if layer in self._stored:
                found[layer] = self._stored[layer]
            elif last in theirs and last in owners:
                found[layer] = self._stored[theirs[last]]
        return found

    def _by_place(self) -> Pairs:
        """By the place in a file of Keras 3, which does not depend on users' names."""
        paths: dict[str, list[Kernel]] = {}
        for one in self._suspect.weights:
            owner, found, _ = one.path.rpartition(_VARIABLES)
            if found:
                paths.setdefault(owner, []).append(one)
        nodes = nodes_in_config(self._reference.config, _with_holders(paths))
        names = {owner: name_of(node) for owner, node in nodes.items()}
        return {layer_name(owner, names): arrays for owner, arrays in paths.items()}

    def _by_order(self, names: Sequence[str]) -> Pairs:
        """By the order of the layers; some may be missing, others be there too.

        The longest sequence of pairs that fit, those of the very shape first.
        """
        layers = list(self._reference.layers)
        if len(names) > _MOST_LAYERS * len(layers):
            return {}
        scores = [
            [self._likeness(layer, self._stored[name]) for name in names]
            for layer in layers
        ]
        best = [[0] * (len(names) + 1) for _ in range(len(layers) + 1)]
        for row in reversed(range(len(layers))):
            for column in reversed(range(len(names))):
                best[row][column] = max(
                    best[row + 1][column],
                    best[row][column + 1],
                    best[row + 1][column + 1] + scores[row][column],
                )
        found = {}
        row = column = 0
        while row < len(layers) and column < len(names):
            score = scores[row][column]
            if score and best[row][column] == best[row + 1][column + 1] + score:
                found[layers[row]] = self._stored[names[column]]
                row, column = row + 1, column + 1
            elif best[row][column] == best[row + 1][column]:
                row += 1
            else:
                column += 1
        return found

    def _likeness(self, layer: str, arrays: Sequence[Kernel]) -> int:
        """0 for a layer that does not fit, more for one of the very shapes."""
        fitting = self._fitting(layer, arrays)
        shapes = {name[1]: one.shape for name, one in fitting.items()}
        if not fitting:
            return 0
        return 3 if shapes == self._reference.shapes[layer] else 1

    def _fitting(self, layer: str, arrays: Sequence[Kernel]) -> MatchedWeights:
        """A layer's arrays by the owner's names; none if its kernel is missing."""
        call = self._reference.layers.get(layer)
        if call is None:
            return {}
        named = by_variable(call.kind, call.config, arrays)
        found: MatchedWeights = {}
        for variable, shape in self._reference.shapes[layer].items():
            name = (layer, variable)
            fits = [one for one in named.get(variable, []) if self._fits(name, one)]
            if fits:
                found[name] = fits[0]
            elif len(shape) > 1:
                return {}
        return found

    def _fits(self, name: WeightName, theirs: Kernel) -> bool:
        """Whether a weight may be the owner's, with some neurons more or fewer."""
        owners = self._reference.weights[name].shape
        return len(owners) == len(theirs.shape) and all(
            size == owner
            or (self._may_grow(name, axis - len(owners)) and size <= _WIDEST * owner)
            for axis, (owner, size) in enumerate(zip(owners, theirs.shape, strict=True))
        )

    def _may_grow(self, name: WeightName, axis: int) -> bool:
        channels = self._reference.graph.channels
        parts = self._parts.get((*name, axis), [])
        return any(not channels[one.channels].fixed for one in parts)


def _with_holders(paths: Iterable[str]) -> set[str]:
    """Paths, and those of all that they are in; lists are in the paths only."""
    found: set[str] = set()
    for path in paths:
        while path:
            if not is_list(path):
                found.add(path)
            path = path.rpartition("/")[0]
    return found


def _by_last(names: Sequence[str] | Mapping[str, object]) -> dict[str, str]:
    """Names by their last part, where no other has the same."""
    counts = Counter(name.rpartition("/")[2] for name in names)
    return {
        last: name for name in names if counts[last := name.rpartition("/")[2]] == 1
    }
