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
    SearchAttempt,
    SearchResult,
    best_of,
    check_work,
    fits,
    search,
)

_UNALIGNED = "unaligned"
_ALIGNED = "aligned"
_REORDERED = "reordered"
# A note lists so many layers at most.
_LISTED_LAYERS = 5


def aligned_search(
    suspect: ModelFile,
    key: WatermarkKey,
    layer: str | None,
    limits: Limits,
    reference: Reference | None,
    reordered: bool,
) -> SearchResult:
    """Tests a suspect's kernels unaligned, and in each way that is asked for.

    Args:
        suspect: The open model.
        key: The key to look for.
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
    aligned: SearchAttempt | None = None
    notes: list[str] = []
    if reference is not None:
        try:
            matches = match_layers(reference, suspect)
            names = _kernel_names(reference, layer)
            aligned, failures = _search_aligned(reference, matches, names, key, limits)
        except AlignmentError as error:
            notes.append(f"Not aligned with {reference.source}: {error}")
        else:
            notes += [*_unmatched_layers(reference, matches), *failures]
            if layer is not None:
                kernels = _matched_kernels(matches, names)
    if kernels is None:
        kernels = suspect.kernels
        if layer is not None:
            kernels = select(kernels, layer, suspect.path)
    attempts = [SearchAttempt(_UNALIGNED, search(kernels, [key], limits)[0])]
    attempts += [aligned] if aligned else []
    attempts += [_search_reordered(kernels, key, limits)] if reordered else []
    best = best_of([attempt.result for attempt in attempts])
    if layer is not None and not best.tried:
        key.check_shape(kernels[0].shape)
    return replace(best, attempts=tuple(attempts), notes=tuple(notes))


def _matched_kernels(
    matches: Sequence[MatchedWeights], names: Sequence[WeightName]
) -> list[Kernel]:
    """Returns each kernel of the suspect that is matched with one of the names."""
    kernels = [match[name] for match in matches for name in names if name in match]
    return list({id(kernel): kernel for kernel in kernels}.values())


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
    kernels = reference.kernels
    if layer is not None:
        try:
            kernels = select(kernels, layer, reference.source)
        except LayerNotFoundError as error:
            # The suspect can have a layer of this name whose channels are not
            # followed, and which is missing in the reference for that reason.
            raise AlignmentError(str(error)) from None
    return [(kernel.layer, kernel.variable) for kernel in kernels]


def _search_aligned(
    reference: Reference,
    matches: Sequence[MatchedWeights],
    wanted: Sequence[WeightName],
    key: WatermarkKey,
    limits: Limits,
) -> tuple[SearchAttempt, list[str]]:
    """Tests each kernel after aligning it by all other weights.

    Args:
        reference: The owner's network.
        matches: The possible matchings of the suspect's weights with the reference's.
        wanted: Names in the reference of the kernels to test.
        key: The key to look for.
        limits: Limits on the work of the search.

    Returns:
        The attempt, and for each kernel that could not be aligned, the reason.

    Raises:
        AlignmentError: If no kernel could be aligned.
    """
    fitting = [name for name in wanted if fits(reference.weights[name], key)]
    names_by_match = [
        (match, [name for name in fitting if name in match]) for match in matches
    ]
    check_work(
        [reference.weights[name] for _, names in names_by_match for name in names],
        [key],
        limits,
    )
    attempts: list[SearchAttempt] = []
    # Several matchings often fail for the same reason, which is reported once.
    failures: dict[str, None] = {}
    for match, names in names_by_match:
        aligner = Aligner(reference.graph, reference.values, read_weights(match))
        for name in names:
            try:
                alignment = aligner.align_without(name)
                kernel = alignment.aligned(name)
            except AlignmentError as error:
                failures[str(error)] = None
                continue
            result = SearchResult((match[name],), detect(kernel, key), 1)
            changes = alignment.correspondence.changes
            attempts.append(SearchAttempt(_ALIGNED, result, changes))
    if not attempts:
        reasons = failures or ["No kernel that can hold the message has a counterpart."]
        raise AlignmentError(" ".join(reasons))
    return _best_attempt(attempts), list(failures)


def _search_reordered(
    kernels: Sequence[Kernel], key: WatermarkKey, limits: Limits
) -> SearchAttempt:
    """Tests each kernel in the arrangements of its filters that maximise the score."""
    from keras_wm.alignment.filter_assignment import arrangements

    fitting = [kernel for kernel in kernels if fits(kernel, key)]
    check_work(fitting, [key], limits)
    attempts = [SearchAttempt(_REORDERED, SearchResult((), None, 0))]
    for kernel in fitting:
        for arrangement in arrangements(kernel.read(), key):
            detection = detect(arrangement.kernel, key)
            log10_family = arrangement.log10_family
            result = SearchResult((kernel,), detection, 1, 0, log10_family)
            changes = {"moved": arrangement.moved, "flipped": arrangement.flipped}
            attempts.append(SearchAttempt(_REORDERED, result, changes))
    return _best_attempt(attempts)


def _best_attempt(attempts: Sequence[SearchAttempt]) -> SearchAttempt:
    """Returns the attempt with the most significant result, counting all tests."""
    best = best_of([attempt.result for attempt in attempts])
    (undone, *_) = (
        attempt.undone
        for attempt in attempts
        if attempt.result.detection is best.detection
    )
    return SearchAttempt(attempts[0].name, best, undone)
