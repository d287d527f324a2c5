"""Searches of a suspect's kernels, unaligned, aligned and reordered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keras_wm.alignment.aligner import Aligner
from keras_wm.alignment.channel_graph import WeightName
from keras_wm.alignment.layer_matching import MatchedWeights, match_layers
from keras_wm.alignment.reference import Reference, read_weights
from keras_wm.errors import AlignmentError, LayerNotFoundError
from keras_wm.files import Kernel, Limits, ModelFile, select
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.search import (
    SearchResult,
    best_of,
    check_work,
    fits,
    kernels_to_search,
    search,
)

# A note lists at most this many layers.
_LISTED_LAYERS = 5


def aligned_search(
    suspect: ModelFile,
    keys: Sequence[WatermarkKey],
    layer: str | None,
    limits: Limits,
    reference: Reference | None,
    reordered: bool,
) -> SearchResult:
    """Tests a suspect's kernels unaligned, and in each way that is asked for.

    Args:
        suspect: The open model.
        keys: The key to look for, in each slot.
        layer: Name of the layer to search, as in the reference if there is one.
            `None` searches all kernels.
        limits: Limits on the work of the search.
        reference: The owner's network, with which the suspect is aligned; `None` to
            skip the alignment.
        reordered: Whether to test each kernel also with its filters in the order and
            signs that maximise the score.

    Returns:
        The most significant result, with all attempts. Every test is counted in it.

    Raises:
        LayerNotFoundError: If there is no such layer.
        ModelFileError: If a weight cannot be read.
        UnsafeFileError: If the search would take too long.
        ValueError: If the named layer cannot hold the message.
    """
    kernels: Sequence[Kernel] | None = None
    aligned: SearchResult | None = None
    notes: list[str] = []
    if reference is not None:
        try:
            matches = match_layers(reference, suspect)
            names = _kernel_names(reference, layer)
            aligned, failures = _search_aligned(reference, matches, names, keys, limits)
        except AlignmentError as error:
            notes.append(f"Not aligned with {reference.source}: {error}")
        else:
            notes += [*_unmatched_layers(reference, matches), *failures]
            if layer is not None:
                found = [
                    match[name] for match in matches for name in names if name in match
                ]
                kernels = list({id(kernel): kernel for kernel in found}.values())
    if kernels is None:
        kernels = kernels_to_search(suspect, layer, keys[0])
    unaligned = best_of(search(kernels, keys, limits))
    attempts = [replace(unaligned, name="unaligned")]
    if aligned is not None:
        attempts.append(replace(aligned, name="aligned"))
    if reordered:
        result = _search_reordered(kernels, keys, limits)
        attempts.append(replace(result, name="reordered"))
    return replace(best_of(attempts), attempts=tuple(attempts), notes=tuple(notes))


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
    reference: Reference,
    matches: Sequence[MatchedWeights],
    wanted: Sequence[WeightName],
    keys: Sequence[WatermarkKey],
    limits: Limits,
) -> tuple[SearchResult, list[str]]:
    """Tests each wanted kernel after aligning it by all other weights.

    Returns the most significant result, and the reasons why kernels could not be
    aligned. Raises AlignmentError if there is no result.
    """
    fitting = [name for name in wanted if fits(reference.weights[name], keys[0])]
    names = [name for match in matches for name in fitting if name in match]
    check_work([reference.weights[name] for name in names], keys, limits)
    results: list[SearchResult] = []
    # Several matchings often fail for the same reason, which is reported once.
    failures: dict[str, None] = {}
    for match in matches:
        aligner = Aligner(reference.graph, reference.values, read_weights(match))
        for name in fitting:
            if name not in match:
                continue
            try:
                alignment = aligner.align_without(name)
                kernel = alignment.aligned(name)
            except AlignmentError as error:
                failures[str(error)] = None
                continue
            changes = alignment.correspondence.changes
            results += [
                SearchResult(
                    (match[name],),
                    detect(kernel, key),
                    tried=1,
                    slot=key.slot,
                    undone=changes,
                )
                for key in keys
            ]
    if not results:
        reasons = failures or ["No kernel that can hold the message has a counterpart."]
        raise AlignmentError(" ".join(reasons))
    return best_of(results), list(failures)


def _search_reordered(
    kernels: Sequence[Kernel], keys: Sequence[WatermarkKey], limits: Limits
) -> SearchResult:
    """Tests each kernel in the arrangements of its filters that maximise the score."""
    from keras_wm.alignment.filter_assignment import arrangements

    fitting = [kernel for kernel in kernels if fits(kernel, keys[0])]
    check_work(fitting, keys, limits)
    results = [SearchResult((), None, 0)]
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
    return best_of(results)
