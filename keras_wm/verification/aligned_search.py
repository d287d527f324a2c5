"""Searches of a suspect's kernels, unaligned, aligned and reordered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from keras_wm.alignment.aligner import Aligner
from keras_wm.alignment.channel_graph import WeightName
from keras_wm.alignment.held_out import held_out_kernels
from keras_wm.alignment.layer_matching import MatchedWeights, match_layers
from keras_wm.alignment.reference import Reference, read_weights
from keras_wm.errors import AlignmentError, LayerNotFoundError
from keras_wm.files import Kernel, Limits, ModelFile, select
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search import (
    check_work,
    count_fitting,
    kernels_to_search,
    search,
)
from keras_wm.verification.search_result import (
    SearchResult,
    best_of,
)

# A note lists at most this many layers.
_LISTED_LAYERS = 5

_Names = frozenset[WeightName]


@dataclass(frozen=True)
class _Source:
    """A network of the owner that the suspect is aligned with.

    Attributes:
        attempt: Name of the attempt.
        choice: Name of the free choice that the attempt rests on.
        network: The network.
        is_marked: Whether the network can carry the mark.
    """

    attempt: str
    choice: str
    network: Reference
    is_marked: bool

    def held_out(self, key: WatermarkKey) -> Mapping[WeightName, _Names]:
        """Returns the kernels that must not determine the alignment of each kernel."""
        if self.is_marked:
            return held_out_kernels(self.network, key)
        # A network from before the mark depends on nothing of the key.
        return {name: frozenset() for name in self.network.weights}


def aligned_search(
    suspect: ModelFile,
    keys: Sequence[WatermarkKey],
    layer: str | None,
    limits: Limits,
    reference: Reference | None,
    reordered: bool,
    checkpoint: Reference | None = None,
) -> tuple[list[SearchResult], list[str]]:
    """Tests a suspect's kernels unaligned, and in each way that is asked for.

    Args:
        suspect: The open model.
        keys: The key to look for, in each slot.
        layer: Name of the layer to search, as in the reference or the checkpoint if
            there is one. `None` searches all kernels.
        limits: Limits on the work of the search.
        reference: The owner's marked network, with which the suspect is aligned; `None`
            to skip this alignment.
        reordered: Whether to test each kernel also with its filters in the order and
            signs that maximise the score.
        checkpoint: The same network before it was marked, for another alignment.

    Returns:
        The results of all attempts, and the reasons why kernels were not aligned.

    Raises:
        LayerNotFoundError: If there is no such layer.
        ModelFileError: If a weight cannot be read.
        UnsafeFileError: If the search would take too long.
        ValueError: If the named layer cannot hold the message.
    """
    named: dict[int, Kernel] = {}
    aligned: list[SearchResult] = []
    notes: list[str] = []
    for source in _sources(reference, checkpoint):
        try:
            matches = match_layers(source.network, suspect)
            names = _kernel_names(source.network, layer)
            result, failures = _search_aligned(source, matches, names, keys, limits)
        except AlignmentError as error:
            notes.append(f"Not aligned with {source.network.source}: {error}")
        else:
            choices = frozenset({source.choice})
            aligned.append(replace(result, name=source.attempt, choices=choices))
            notes += [*_unmatched_layers(source.network, matches), *failures]
            found = (
                match[name] for match in matches for name in names if name in match
            )
            named |= {id(kernel): kernel for kernel in found}
    if aligned and layer is not None:
        kernels: Sequence[Kernel] = list(named.values())
    else:
        kernels = kernels_to_search(suspect, layer, keys[0])
    among = suspect.kernels
    unaligned = best_of(search(kernels, keys, limits, among=among))
    attempts = [replace(unaligned, name="unaligned"), *aligned]
    if reordered:
        result = _search_reordered(kernels, keys, limits, among)
        attempts.append(replace(result, name="reordered"))
    return attempts, notes


def _sources(
    reference: Reference | None, checkpoint: Reference | None
) -> Iterator[_Source]:
    """Yields the networks to align with."""
    if reference is not None:
        yield _Source("aligned", "reference", reference, is_marked=True)
    if checkpoint is not None:
        name = "aligned with the checkpoint"
        yield _Source(name, "checkpoint", checkpoint, is_marked=False)


def _unmatched_layers(
    reference: Reference, matches: Sequence[MatchedWeights]
) -> list[str]:
    """Returns a note on the reference layers without a counterpart, if any."""
    matched = {layer for match in matches for layer, _ in match}
    missing = [layer for layer in reference.layers if layer not in matched]
    if not missing:
        return []
    return [
        f"Aligned without {len(missing)} of the {len(reference.layers)} layers, which "
        f"have no counterpart: {', '.join(missing[:_LISTED_LAYERS])}."
    ]


def _kernel_names(reference: Reference, layer: str | None) -> list[WeightName]:
    """Returns the names in the reference of the kernels to test."""
    try:
        kernels = select(reference.kernels, layer, reference.source)
    except LayerNotFoundError as error:
        # The suspect can have a layer of this name whose channels are not followed,
        # and which is missing in the reference for that reason.
        raise AlignmentError(str(error)) from None
    return [(kernel.layer, kernel.variable) for kernel in kernels]


def _search_aligned(
    source: _Source,
    matches: Sequence[MatchedWeights],
    wanted: Sequence[WeightName],
    keys: Sequence[WatermarkKey],
    limits: Limits,
) -> tuple[SearchResult, list[str]]:
    """Tests each wanted kernel after aligning it by the weights that may be used.

    Returns the most significant result, and the reasons why kernels could not be
    aligned. Raises AlignmentError if there is no result.
    """
    network = source.network
    possible = [
        name
        for name in _kernel_names(network, None)
        if keys[0].fits(network.weights[name].shape)
    ]
    fitting = [name for name in possible if name in wanted]
    names = [name for match in matches for name in fitting if name in match]
    kernels = [network.weights[name] for name in names]
    if source.is_marked:
        # All of them are searched for the kernels to hold out.
        kernels += network.kernels
    check_work(kernels, keys, limits)
    held_out = [source.held_out(key) for key in keys]
    results: list[SearchResult] = []
    # Several matchings often fail for the same reason, which is reported once.
    failures: dict[str, None] = {}
    for match in matches:
        aligner = Aligner(network.graph, network.values, read_weights(match))
        for name in fitting:
            if name not in match:
                continue
            for names_out, members in _grouped(name, keys, held_out).items():
                try:
                    results += _test(aligner, name, names_out, match[name], members)
                except AlignmentError as error:
                    failures[f"{error}{_also_held_out(name, names_out)}"] = None
    if not results:
        reasons = failures or ["No kernel that can hold the message has a counterpart."]
        raise AlignmentError(" ".join(reasons))
    counted = sum(name in match for match in matches for name in possible) * len(keys)
    return replace(best_of(results), counted=counted), list(failures)


def _grouped(
    name: WeightName,
    keys: Sequence[WatermarkKey],
    held_out: Sequence[Mapping[WeightName, _Names]],
) -> dict[_Names, list[WatermarkKey]]:
    """Returns the keys that share an alignment of a kernel, by what it leaves out."""
    groups: dict[_Names, list[WatermarkKey]] = {}
    for key, names_of in zip(keys, held_out, strict=True):
        groups.setdefault(names_of[name], []).append(key)
    return groups


def _test(
    aligner: Aligner,
    name: WeightName,
    held_out: _Names,
    kernel: Kernel,
    keys: Sequence[WatermarkKey],
) -> list[SearchResult]:
    """Tests a kernel of the suspect for each key after its alignment.

    Raises AlignmentError if the weights that are not held out do not determine it.
    """
    alignment = aligner.align_without(*held_out)
    values, changes = alignment.aligned(name), alignment.correspondence.changes
    return [
        SearchResult(
            (kernel,), detect(values, key), tried=1, slot=key.slot, undone=changes
        )
        for key in keys
    ]


def _also_held_out(name: WeightName, held_out: _Names) -> str:
    """Returns which other kernels were left out and what to do, or an empty string."""
    others = sorted(layer for layer, _ in held_out - {name})
    if not others:
        return ""
    return (
        f" Left out, because they carry the mark in the same slot: "
        f"{', '.join(others[:_LISTED_LAYERS])}. Mark kernels of one shape in different "
        "slots, or give the network from before the mark as checkpoint."
    )


def _search_reordered(
    kernels: Sequence[Kernel],
    keys: Sequence[WatermarkKey],
    limits: Limits,
    among: Sequence[Kernel],
) -> SearchResult:
    """Tests each kernel in the arrangements of its filters that maximise the score.

    All kernels `among` which they were chosen are counted.
    """
    from keras_wm.alignment.filter_assignment import arrangements, families

    fitting = [kernel for kernel in kernels if keys[0].fits(kernel.shape)]
    check_work(fitting, keys, limits)
    results = [SearchResult()]
    for kernel in fitting:
        values = kernel.read()
        results += [
            SearchResult(
                (kernel,),
                detect(arrangement.kernel, key),
                tried=1,
                slot=key.slot,
                log10_arrangements=arrangement.log10_family,
                undone={"moved": arrangement.moved, "flipped": arrangement.flipped},
            )
            for key in keys
            for arrangement in arrangements(values, key)
        ]
    tests = len(families(keys[0])) * len(keys)
    return replace(best_of(results), counted=tests * count_fitting(among, keys[0]))
