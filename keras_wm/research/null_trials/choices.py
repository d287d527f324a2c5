"""The p-values of a trial, by what somebody chose after seeing all of them.

The names of the paths say what was chosen. Each p-value is the smallest one that the
public report states for an attempt, and P(p <= alpha) <= alpha. A report counts the
choices that one call offers, but not that there was another call with other arguments,
nor that findings of another standing were possible. So where the number of slots or
the kind of test is chosen afterwards, only P(p <= alpha) <= c alpha holds. `FACTORS`
has the c of these paths: the sum of the shares of alpha that every possible test gets
in the call that favours it most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_wm.claims.claim import Claim
from keras_wm.claims.facts import ClaimedLayer
from keras_wm.files import DEFAULT_LIMITS, ModelSource, open_model
from keras_wm.research.alignment_trials.networks import Weights
from keras_wm.research.alignment_trials.trials import SIBLING, Trial
from keras_wm.research.null_trials.hosts import (
    LAYERS,
    cheap_key,
    draw,
    marked_for,
    network,
)
from keras_wm.research.null_trials.outcomes import Figures
from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.claimed import CLAIMED_LAYERS, search_claimed
from keras_wm.verification.identification import Identification, identify
from keras_wm.verification.result import Verification
from keras_wm.verification.search_result import SearchResult, judge
from keras_wm.verification.verification import verify

ANY = "any argument of verify"
VERDICT_ALIGNED = "all attempts with both"
ANY_ALIGNMENT = "any reference or none"
VERDICT_CLAIMED = "claimed layers or all layers"
ANY_ORIGINAL = "an original or none"
BEST_SET = "best set of layers jointly"
BEST_SLOTS = "best number of slots"
BEST_ORDER = "best layers in slots jointly"
NUMBERS_OF_SLOTS = (1, 2, 4, 8)

_COUNT = len(LAYERS)


def _factor_of_slots() -> float:
    """Each slot gets alpha / n if n, the smallest number that includes it, is named."""
    new = np.diff((0, *NUMBERS_OF_SLOTS))
    return float(np.sum(new / np.array(NUMBERS_OF_SLOTS)))


def _factor_of_orders() -> float:
    """Half is for the sets of each size, and half for each kernel in each slot."""
    sizes = range(2, _COUNT + 1)
    alone = [1 / max(2, slot + 1) for slot in range(_COUNT)]
    return (len(sizes) / _COUNT + sum(alone)) / 2


# All layers as one need no choice and get as much as all smaller sets together.
_FACTOR_OF_SETS = 1.5 - 1 / _COUNT
FACTORS: Mapping[str, float] = {
    BEST_SET: _FACTOR_OF_SETS,
    BEST_SLOTS: _factor_of_slots(),
    BEST_ORDER: _factor_of_orders(),
    # The last one is that of the reordered search.
    ANY: _FACTOR_OF_SETS + _factor_of_slots() + _factor_of_orders() + 0.5,
    # Findings that rest on no free choice get alpha, because those that do cannot
    # displace them. The others count all attempts.
    VERDICT_ALIGNED: 1 + 2 / 3,
    VERDICT_CLAIMED: 1 + 1 / 2,
    # The unaligned search, and each alignment by itself.
    ANY_ALIGNMENT: 1 + 1 / 2 + 1 / 2,
    ANY_ORIGINAL: 2.0,
}

_FIXED = "second"
_RECIPIENTS = 8

Figured = dict[str, Figures]


def network_trial(number: int) -> Figured:
    """Tests a network in every way that needs no other model."""
    key, weights = cheap_key(number), draw(np.random.default_rng(number))
    model = network(weights)
    everything = verify(model, key)
    named = [verify(model, key, name) for name in LAYERS]
    fixed = named[LAYERS.index(_FIXED)]
    scores = [report.z.mean() for report in named]
    ranked = [LAYERS[index] for index in np.argsort(scores)[::-1]]
    jointly = [verify(model, key, ranked[:size]) for size in range(2, len(LAYERS) + 1)]
    two = verify(model, key, [_FIXED, "last"])
    slotted = [verify(model, key, slots=slots) for slots in NUMBERS_OF_SLOTS]
    single = verify(model, key.in_slot(3), _FIXED)
    in_order = _in_best_slots(weights, key)
    reordered = verify(model, key, reordered=True)
    figured = {
        "all layers": _figures([everything], fixed.log10_p_soft),
        "best named layer": _figures(named),
        "two layers jointly": _figures([two], two.attempts[0].log10_p),
        "all layers jointly": _figures([jointly[-1]], jointly[-1].attempts[0].log10_p),
        BEST_SET: _figures(jointly),
        f"{NUMBERS_OF_SLOTS[-1]} slots": _figures([slotted[-1]], single.log10_p_soft),
        BEST_SLOTS: _figures(slotted),
        BEST_ORDER: _figures(in_order),
        "reordered": _figures([reordered]),
    }
    best = min(figures.corrected for figures in figured.values())
    return figured | {ANY: Figures(best)}


def _in_best_slots(weights: Weights, key: WatermarkKey) -> list[Verification]:
    """Tests the sets of layers whose order in slots 0, 1 and so on looks best."""
    chosen: list[str] = []
    tested: list[Verification] = []
    while len(chosen) < _COUNT:
        member = key.in_slot(len(chosen))
        rest = [name for name in LAYERS if name not in chosen]
        scores = [detect(weights[name, "kernel"], member).z_mean for name in rest]
        chosen.append(rest[int(np.argmax(scores))])
        if len(chosen) > 1:
            tested.append(verify(network(weights), key, chosen, slots=len(chosen)))
    return tested


def hard_trial(number: int) -> Figured:
    """Tests a network with keys of the papers' projections, which have no soft p."""
    model = network(draw(np.random.default_rng(number)))
    return {
        f"all layers, {projection}": _figures(
            [verify(model, cheap_key(number, 8, projection))]
        )
        for projection in ("direct", "diff")
    }


def claimed_trial(number: int) -> Figured:
    """Tests layers that a claim names, which was made for other weights."""
    key, rng = cheap_key(number), np.random.default_rng(number)
    suspect, owners = network(draw(rng)), network(draw(rng))
    shape = owners.arrays["first", "kernel"].shape
    figured = {}
    for jointly in (False, True):
        layers = [ClaimedLayer(_FIXED, 1, shape), ClaimedLayer("last", 0, shape)]
        claim = Claim.make(owners, key, layers, jointly=jointly)
        how = "jointly" if jointly else "one by one"
        figured[f"claimed layers, {how}"] = _claimed(suspect, key, claim)
    elsewhere = [ClaimedLayer("of another name", 1, shape)]
    claim = Claim.make(owners, key, elsewhere)
    figured["claimed layers, all of their shape"] = _claimed(suspect, key, claim)
    everything = verify(suspect, key).attempts
    figured[VERDICT_CLAIMED] = _claimed(suspect, key, claim, everything)
    return figured


def _claimed(
    suspect: ModelSource,
    key: WatermarkKey,
    claim: Claim,
    others: Sequence[SearchResult] = (),
) -> Figures:
    """Tests claimed layers as if the claim were dated, beside other attempts."""
    with open_model(suspect) as opened:
        result = search_claimed(opened, key, claim, DEFAULT_LIMITS)
    judged = judge([*others, result], key, frozenset({CLAIMED_LAYERS}))
    single = result.log10_p if claim.jointly else None
    return Figures(_smallest(judged), single)


def recipients_trial(number: int) -> Figured:
    """Looks for innocent recipients in networks with and without others' marks."""
    key, rng = cheap_key(number), np.random.default_rng(number)
    weights = draw(rng)
    original = network(weights)
    # Without noise, the unmarked kernels would be equal to the original's.
    tuned = {
        name: array + 0.1 * array.std() * rng.normal(size=array.shape)
        for name, array in weights.items()
    }
    unmarked, names = network(tuned), [f"innocent {i}" for i in range(_RECIPIENTS)]
    leaked = network(marked_for(tuned, key, ["a leak", "another leak"]))
    without = [identify(suspect, key, names) for suspect in (unmarked, leaked)]
    beside = [
        identify(suspect, key, names, original=original)
        for suspect in (unmarked, leaked)
    ]
    return {
        "recipients, unmarked": _named(without[:1]),
        "recipients, marked for others": _named(without[1:]),
        "recipients with original, unmarked": _named(beside[:1]),
        "recipients with original, marked for others": _named(beside[1:]),
        ANY_ORIGINAL: _named([without[1], beside[1]]),
    }


def _named(found: Sequence[Identification]) -> Figures:
    return Figures(min(report.traces[0].log10_p for report in found))


def files_trial(files: dict[str, Path], number: int) -> Figured:
    """Tests files that were written once."""
    key = cheap_key(number)
    return {name: _figures([verify(path, key)]) for name, path in files.items()}


def aligned_trial(trial: Trial) -> Figured:
    """Tests the suspects of a key that has marked its own reference.

    All layers are tested. Others than the tested one can be marked, too.
    """
    figured: Figured = {}
    for name, suspect in trial.suspects.items():
        reference: dict[str, Any] = {"reference": trial.reference}
        checkpoint: dict[str, Any] = {"checkpoint": trial.checkpoint}
        plain = verify(suspect, trial.key)
        one, other, both = (
            verify(suspect, trial.key, **networks)
            for networks in (reference, checkpoint, reference | checkpoint)
        )
        figured |= {
            f"reference, {name}": _aligned(one),
            f"checkpoint, {name}": _aligned(other),
            f"both, {name}": _aligned(both),
        }
        if name == SIBLING:
            figured[VERDICT_ALIGNED] = _figures([both])
            figured[ANY_ALIGNMENT] = _figures([plain, one, other, both])
    return figured


def _aligned(found: Verification) -> Figures:
    """Returns the figures of the aligned attempts of a report."""
    return Figures(_smallest([result for result in found.attempts if result.choices]))


def _figures(found: Sequence[Verification], single: float | None = None) -> Figures:
    """Returns the figures of the most significant attempt in several reports."""
    return Figures(min(_smallest(report.attempts) for report in found), single)


def _smallest(results: Sequence[SearchResult]) -> float:
    return min((result.log10_p_corrected for result in results), default=0.0)
