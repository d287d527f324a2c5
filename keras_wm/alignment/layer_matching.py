"""Matching of a suspect's layers with the reference's layers.

Layers can have been renamed or wrapped in other models. There can therefore be several
matchings: by the names of the layers, by their paths in the file, and by their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from keras_wm.alignment.channel_graph import WeightName
from keras_wm.alignment.reference import (
    Reference,
    arrays_by_variable,
    group_by_layer,
)
from keras_wm.errors import AlignmentError
from keras_wm.files import Kernel, ModelFile
from keras_wm.files.config.calls import calls_in
from keras_wm.files.config.layer_names import is_list, layer_name, nodes_in_config
from keras_wm.files.config.nodes import name_of

# A suspect's layer can be at most 4 times as wide as the reference's, and a suspect can
# have at most 4 times as many layers. This bounds the memory and time of an alignment.
_MAX_WIDENING = 4
_MAX_LAYERS_RATIO = 4
_VARIABLES = "/vars/"

# The suspect's weights, by the names in the reference.
MatchedWeights = dict[WeightName, Kernel]
# The stored arrays of the suspect's layers, by the names of the reference's layers.
LayerArrays = Mapping[str, Sequence[Kernel]]


def match_layers(reference: Reference, suspect: ModelFile) -> list[MatchedWeights]:
    """Matches the suspect's weights with the reference's, in every plausible way.

    Args:
        reference: The reference model.
        suspect: The open suspect model. Its content is not trusted.

    Returns:
        One or more matchings, each with the kernels of at least half of the reference's
        layers.

    Raises:
        AlignmentError: If there is none.
    """
    matcher = _LayerMatcher(reference, suspect)
    matchings: list[MatchedWeights] = []
    most = 0
    for layers in matcher.candidates():
        weights: MatchedWeights = {}
        for layer, arrays in layers.items():
            weights |= matcher.fitting(layer, arrays)
        matched = sum(len(weight.shape) > 1 for weight in weights.values())
        most = max(most, matched)
        if 2 * matched >= len(reference.kernels) and weights not in matchings:
            matchings.append(weights)
    if not matchings:
        raise AlignmentError(
            "Expected a network of the reference model's architecture, with kernels of "
            f"{len(reference.kernels)} layers that match those of {reference.source}, "
            f"by their names or their order. Received one in which {most} match."
        )
    return matchings


class _LayerMatcher:
    """Finds counterparts of the reference's layers in a suspect."""

    def __init__(self, reference: Reference, suspect: ModelFile) -> None:
        self._reference = reference
        self._suspect = suspect
        self._stored = group_by_layer(suspect.weights)
        self._wanted = group_by_layer(reference.weights.values())

    def candidates(self) -> Iterator[LayerArrays]:
        """Yields a matching of layers for each way to match them."""
        by_name, by_path = self._by_name(), self._by_path()
        yield from (by_name, by_path)
        calls = calls_in(self._suspect.config())
        if calls is not None:
            called = {call.layer: call for call in calls.calls}
            names = [
                name
                for name, call in called.items()
                if arrays_by_variable(call, self._stored.get(name, []))
            ]
            if names != list(self._reference.layers):
                yield self._by_order(names)
        elif max(len(by_name), len(by_path)) < len(self._reference.layers):
            # Without a config, the order in the file is all there is.
            yield self._by_order(list(self._stored))

    def _by_name(self) -> LayerArrays:
        """Matches layers by their names, or else by the last parts of their names."""
        layers = {}
        suspect_names = _by_last_part(self._stored)
        reference_names = _by_last_part(self._reference.layers)
        for layer in self._reference.layers:
            last = layer.rpartition("/")[2]
            if layer in self._stored:
                layers[layer] = self._stored[layer]
            elif last in suspect_names and last in reference_names:
                layers[layer] = self._stored[suspect_names[last]]
        return layers

    def _by_path(self) -> LayerArrays:
        """Matches layers by their paths in a file of Keras 3.

        These paths consist of the classes of the layers. They do not depend on names
        that a user can change.
        """
        stored: dict[str, list[Kernel]] = {}
        for weight in self._suspect.weights:
            owner, separator, _ = weight.path.rpartition(_VARIABLES)
            if separator:
                stored.setdefault(owner, []).append(weight)
        nodes = nodes_in_config(self._reference.config, _with_parents(stored))
        names = {owner: name_of(node) for owner, node in nodes.items()}
        return {layer_name(owner, names): arrays for owner, arrays in stored.items()}

    def _by_order(self, names: Sequence[str]) -> LayerArrays:
        """Matches layers by their order, allowing insertions and deletions.

        Finds the sequence of pairs with the largest sum of match scores, by dynamic
        programming.
        """
        layers = list(self._reference.layers)
        if len(names) > _MAX_LAYERS_RATIO * len(layers):
            return {}
        scores = [
            [self._match_score(layer, self._stored[name]) for name in names]
            for layer in layers
        ]
        # best[row][column]: the largest sum for layers[row:] and names[column:].
        best = [[0] * (len(names) + 1) for _ in range(len(layers) + 1)]
        for row in reversed(range(len(layers))):
            for column in reversed(range(len(names))):
                best[row][column] = max(
                    best[row + 1][column],
                    best[row][column + 1],
                    best[row + 1][column + 1] + scores[row][column],
                )
        pairs = {}
        row = column = 0
        while row < len(layers) and column < len(names):
            score = scores[row][column]
            if score and best[row][column] == best[row + 1][column + 1] + score:
                pairs[layers[row]] = self._stored[names[column]]
                row, column = row + 1, column + 1
            elif best[row][column] == best[row + 1][column]:
                row += 1
            else:
                column += 1
        return pairs

    def _match_score(self, layer: str, arrays: Sequence[Kernel]) -> int:
        """Returns 0 for an incompatible layer, 1 for a widened one, 3 for equal shapes.

        One layer of equal shapes is thus preferred to two widened ones.
        """
        shapes = [weight.shape for weight in self.fitting(layer, arrays).values()]
        if not shapes:
            return 0
        return 3 if shapes == [weight.shape for weight in self._wanted[layer]] else 1

    def fitting(self, layer: str, arrays: Sequence[Kernel]) -> MatchedWeights:
        """Returns a layer's fitting weights; none if its kernel is not one of them."""
        call = self._reference.layers.get(layer)
        if call is None:
            return {}
        named = arrays_by_variable(call, arrays)
        weights: MatchedWeights = {}
        for wanted in self._wanted[layer]:
            candidates = named.get(wanted.variable, [])
            fitting = [array for array in candidates if self._fits(wanted, array)]
            if fitting:
                weights[layer, wanted.variable] = fitting[0]
            elif len(wanted.shape) > 1:
                return {}
        return weights

    def _fits(self, wanted: Kernel, array: Kernel) -> bool:
        """Returns whether an array can be a weight, with neurons added or removed."""
        rank = len(wanted.shape)
        return len(array.shape) == rank and all(
            array.shape[axis] == wanted.shape[axis]
            or (
                self._can_grow(wanted, axis)
                and array.shape[axis] <= _MAX_WIDENING * wanted.shape[axis]
            )
            for axis in range(-rank, 0)
        )

    def _can_grow(self, wanted: Kernel, axis: int) -> bool:
        """Returns whether neurons can be added along an axis of a weight."""
        graph = self._reference.graph
        parts = graph.parts.get(((wanted.layer, wanted.variable), axis), [])
        return any(not graph.sets[part.set_id].fixed for part in parts)


def _with_parents(paths: Iterable[str]) -> set[str]:
    """Returns paths and all their parents, except lists of layers."""
    result: set[str] = set()
    for path in paths:
        while path:
            if not is_list(path):
                result.add(path)
            path = path.rpartition("/")[0]
    return result


def _by_last_part(names: Sequence[str] | Mapping[str, object]) -> dict[str, str]:
    """Returns names by their last parts, without those that are not unique."""
    counts = Counter(name.rpartition("/")[2] for name in names)
    return {
        last: name for name in names if counts[last := name.rpartition("/")[2]] == 1
    }
