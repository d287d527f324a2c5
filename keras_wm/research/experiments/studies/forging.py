"""The experiment `forging`: evidence that is forged for an unmarked network."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.claims.tokens import import_client
from keras_wm.research.attacks.forging import (
    claims,
    disputes,
    keys,
    references,
    selections,
)
from keras_wm.research.attacks.forging.forgery import Forgery, core_years, fresh_key
from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments.experiment import Experiment, Run, network_run
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import UNMARKED
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import ResultTable
from keras_wm.research.experiments.training import from_scratch
from keras_wm.verification.comparison import Party, compare
from keras_wm.verification.standing import MARKED, PROVEN

# Tries of the searches.
TRIALS = 500
# As many kernels as DenseNet201 has.
LAYERS = 201
_SEED = 0
_STEPS_PER_DECADE = (1, 2, 5)

Search = Callable[[Any, str, int, int], Forgery]


def _searching(search: Search) -> Callable[[Any, str], Forgery]:
    return lambda model, layer: search(model, layer, _SEED, TRIALS)


# Each forges evidence for a network and the name of one of its layers.
FORGERIES: Mapping[str, Callable[[Any, str], Forgery]] = {
    "crafted reference": partial(references.crafted_reference, seed=_SEED),
    "crafted checkpoint": partial(references.crafted_checkpoint, seed=_SEED),
    "marked sibling as reference": partial(references.marked_sibling, seed=_SEED),
    "explicit key": partial(keys.explicit_key, seed=_SEED),
    f"best of {LAYERS} layers": lambda *_: selections.best_subset(_stack(), _SEED),
    "secrets": _searching(keys.ground_secret),
    "owners' names": _searching(keys.ground_owner),
    "recipients' names": _searching(keys.ground_recipients),
    "number of groups": _searching(keys.free_groups),
    "slots": _searching(keys.ground_slots),
}
# Each makes a claim, which is stamped before the claimed network appears.
CLAIMS: Mapping[str, Callable[[Any, str], claims.ForgedClaim]] = {
    "claim of a public base": partial(claims.claim_of_public_base, seed=_SEED),
    "claims made in advance": lambda model, layer: claims.bulk_claims(
        model, layer, _SEED, max(1, TRIALS // 10)
    ),
    "claimed list of recipients' names": lambda model, layer: (
        claims.claim_of_ground_names(model, layer, _SEED, TRIALS)
    ),
}
_UNUSED = "unused weights in the file"
DISPUTES = ("unrelated original", "explicit key and unrelated original")


def _runs(settings: Settings) -> Iterator[Run]:
    host = from_scratch(settings, UNMARKED, 0)
    # The filters of the first convolution of a block can have any order.
    layer = f"conv{settings.group}_block1_conv1"
    for name in (*FORGERIES, _UNUSED):
        yield network_run({"forgery": name}, host, _forge, name=name, layer=layer)
    for name in CLAIMS:
        yield network_run({"forgery": name}, host, _claim, name=name, layer=layer)
    for name in DISPUTES:
        yield network_run({"forgery": name}, host, _dispute, name=name, layer=layer)
    yield network_run({"forgery": "derivation"}, host, _search, layer=layer)


def _forge(model: Any, _pictures: Pictures, name: str, layer: str) -> Measurements:
    with tempfile.TemporaryDirectory() as folder:
        if name == _UNUSED:
            forgery = selections.unused_weights(model, layer, _SEED, Path(folder))
        else:
            forgery = FORGERIES[name](model, layer)
        return _measured(forgery)


def _claim(model: Any, _pictures: Pictures, name: str, layer: str) -> Measurements:
    # Before the import of a module that needs the same extra.
    import_client()
    from keras_wm.research.attacks.forging.authority import LocalAuthority

    forged = CLAIMS[name](model, layer)
    with tempfile.TemporaryDirectory() as folder:
        forgery = forged.presented(LocalAuthority(Path(folder) / "authority"))
        measured = uncontrolled = _measured(forgery)
        if forged.controls:
            arguments = {**forgery.arguments, "controls": ()}
            uncontrolled = _measured(replace(forgery, arguments=arguments))
        return {
            **measured,
            "controls": len(forged.controls),
            "standing_without_controls": uncontrolled["standing"],
            "is_claimed_without_controls": uncontrolled["is_claimed"],
        }


def _measured(forgery: Forgery) -> Measurements:
    """Returns what a verifier finds, and what the forgery cost."""
    found = forgery.verify()
    return {
        "verdict": found.verdict,
        "log10_p": found.log10_p,
        "standing": str(found.standing),
        "is_independent": found.meets("independent"),
        "is_claimed": found.meets("claimed"),
        "tries": forgery.tries,
        "seconds_a_try": forgery.seconds,
        "is_search": forgery.is_search,
    }


def _stack() -> Any:
    """Returns a network of many layers with random weights."""
    keras.utils.set_random_seed(_SEED)
    stack = [keras.layers.Dense(48) for _ in range(LAYERS)]
    return keras.Sequential([keras.Input((48,)), *stack])


def _dispute(model: Any, _pictures: Pictures, name: str, layer: str) -> Measurements:
    """Lets a thief present an original for the owner's model, which carries a mark."""
    owners_key, thiefs_key = fresh_key(_SEED, owner="owner"), fresh_key(_SEED + 1)
    disputed = references.copy_of(model)
    kernel = disputed.get_layer(layer).kernel
    kernel.assign(references.with_mark(np.asarray(kernel), owners_key))
    begin = time.process_time()
    if name == "unrelated original":
        # His key is found in the owner's weights, as if he had searched long enough.
        kernel.assign(references.with_mark(np.asarray(kernel), thiefs_key))
        thief = disputes.unrelated_original(disputed, layer, thiefs_key)
    else:
        thief = disputes.explicit_party(disputed, layer, _SEED)
    seconds = time.process_time() - begin
    owner = Party(owners_key, references.copy_of(disputed))
    comparison = compare(disputed, [owner, thief])
    is_thief = comparison.first is not None and comparison.first != owners_key.owner
    return {
        "verdict": "thief is first" if is_thief else "thief is not first",
        "is_independent": False,
        "is_claimed": is_thief,
        "tries": 1,
        "seconds_a_try": seconds,
        "is_search": False,
    }


def _search(model: Any, _pictures: Pictures, layer: str) -> Measurements:
    """Measures a search for secrets: the smallest p-value, and the time of a try."""
    kernel = np.asarray(model.get_layer(layer).kernel, np.float64)
    log10_p = [p for _, p in keys.searched_keys(kernel, 64, TRIALS, seed=0)]
    best = np.minimum.accumulate(log10_p)
    return {
        "seconds_a_derivation": keys.seconds_per_derivation(),
        "curve": [[count, float(best[count - 1])] for count in _counts(TRIALS)],
    }


def _counts(last: int) -> list[int]:
    """Returns 1, 2, 5, 10, 20, 50 and so on, up to `last`."""
    decades = range(len(str(last)))
    counts = [step * 10**decade for decade in decades for step in _STEPS_PER_DECADE]
    return [*(count for count in counts if count < last), last]


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    forged = [row for row in rows if "verdict" in row]
    uncontrolled = [row for row in forged if row.get("is_claimed_without_controls")]
    evidence = ResultTable(
        "Forged evidence for an unmarked network",
        ["forged", "verdict", "log10 p", "standing", "evidence", "seconds"],
        [_evidence_line(row) for row in forged],
        [
            "standing: of what was found. evidence: whether the report says that it is "
            "evidence for others. A private finding never is, whatever its p-value. "
            "seconds: the time that the forgery took.",
            *(_note_on_controls(row["forgery"]) for row in uncontrolled),
        ],
    )
    derivations = [row["seconds_a_derivation"] for row in rows if "curve" in row]
    searches = ResultTable(
        "Cost of a search",
        [
            *("searched", "tries", "seconds per try"),
            *(f"years to p < {name}" for name in (f"{MARKED:g}", "2^-64")),
        ],
        [_search_line(row) for row in forged if row["is_search"]],
        [
            "years: the time in which one core makes 1 / p tries. A search among "
            "slots, sets of layers or names of a claimed list gains nothing, because "
            "the p-value counts them. A claim in advance costs a time stamp, too.",
            *map(_cost_of_search, derivations),
        ],
    )
    return [evidence, searches]


def _evidence_line(row: Row) -> list[str]:
    found = row["verdict"] in ("marked", "proven")
    return [
        row["forgery"],
        row["verdict"],
        f"{row['log10_p']:.1f}" if "log10_p" in row else "",
        row["standing"] if found else "",
        "yes" if row["is_independent"] or row["is_claimed"] else "no",
        f"{row['tries'] * row['seconds_a_try']:.2g}",
    ]


def _search_line(row: Row) -> list[str]:
    seconds = row["seconds_a_try"]
    years = [f"{core_years(p, seconds):.2g}" for p in (MARKED, PROVEN)]
    return [row["forgery"], f"{row['tries']:,}", f"{seconds:.2g}", *years]


def _note_on_controls(forgery: str) -> str:
    return (
        f"{forgery}: the public network is a control, as the rules ask. Without it, "
        "the finding would be claimed, and the report would say that no control was "
        "tested."
    )


def _cost_of_search(seconds: float) -> str:
    return (
        f"A try of a secret or a public choice costs at least a derivation, "
        f"{seconds:.2g} seconds, because nothing of a key is known before. With an "
        "otherwise free test, that is "
        f"{core_years(MARKED, seconds):.2g} core-years to p < {MARKED:g} and "
        f"{core_years(PROVEN, seconds):.2g} to p < 2^-64. Somebody can buy the first. "
        "Only a commitment that is older than the model rules it out."
    )


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    curve = next((row["curve"] for row in rows if "curve" in row), None)
    if curve is None:
        return {}
    curves = {"secrets": [(count, 10**p) for count, p in curve]}
    last = curve[-1][0]
    curves["1 / n"] = [(count, 1 / count) for count in _counts(last)]
    return {
        "search": plots.plot_lines(
            curves, "number n of secrets tried", "smallest p-value", log_x=10, log_y=10
        )
    }


EXPERIMENT = Experiment(
    "forging",
    "Can anybody forge evidence that an unmarked network carries a mark?",
    _runs,
    _tables,
    _figures,
)
