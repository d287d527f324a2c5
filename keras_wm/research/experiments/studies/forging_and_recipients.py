"""The experiments `forging` and `recipients`: forged keys, and traced copies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import log10
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.attacks.forging import searched_keys, solved_key, years_of_search
from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments.experiment import Experiment, Run, network_run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import UNMARKED, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies.embedding import SECOND
from keras_wm.research.experiments.tables import (
    ResultTable,
    grouped,
    make_table,
    mean_of,
    percent,
    worst_of,
)
from keras_wm.research.experiments.training import Training, from_scratch
from keras_wm.scheme.detection import corrected, detect
from keras_wm.utils.arrays import Floats
from keras_wm.verification.result import MARKED, PROVEN

SEARCHED_BITS = (64, 256)
TRIALS = 2000
_STEPS_PER_DECADE = (1, 2, 5)
# Each run marks this many copies, and fine-tunes each for a few epochs.
COPIES_PER_RUN = 10
COPY_EPOCHS = 4
COPY_RATE = 0.05
# Numbers of copies whose weights are averaged.
AVERAGED = (2, 3)
# A recipient is named if the p-value, corrected for all recipients, is below this.
NAMED = 1e-6


def _forging_runs(settings: Settings) -> Iterator[Run]:
    host = from_scratch(settings, UNMARKED, 0)
    layer = group_layer(settings.group)
    for key, bits, forge in (
        ("chosen projection", settings.bits_of("default"), _solved),
        *(("searched secrets", bits, _searched) for bits in SEARCHED_BITS),
    ):
        labels = {"key": key, "bits": bits}
        yield network_run(labels, host, forge, layer=layer, bits=bits)


def _solved(model: Any, _pictures: Pictures, layer: str, bits: int) -> Measurements:
    kernel = _kernel(model, layer)
    begin = time.perf_counter()
    detection = detect(kernel, solved_key(kernel, bits, seed=0))
    return {
        "trials": 1,
        "seconds_a_trial": time.perf_counter() - begin,
        "ber": detection.ber,
        "log10_p": detection.log10_p,
    }


def _searched(model: Any, _pictures: Pictures, layer: str, bits: int) -> Measurements:
    kernel = _kernel(model, layer)
    begin = time.perf_counter()
    log10_p = [p for _, p in searched_keys(kernel, bits, TRIALS, seed=0)]
    seconds = time.perf_counter() - begin
    best = np.minimum.accumulate(log10_p)
    return {
        "trials": TRIALS,
        "seconds_a_trial": seconds / TRIALS,
        "log10_p": float(best[-1]),
        "curve": [[count, float(best[count - 1])] for count in _counts(TRIALS)],
    }


def _counts(last: int) -> list[int]:
    """Returns 1, 2, 5, 10, 20, 50 and so on, up to `last`."""
    decades = range(len(str(last)))
    counts = [step * 10**decade for decade in decades for step in _STEPS_PER_DECADE]
    return [*(count for count in counts if count < last), last]


def _forging_tables(rows: Sequence[Row]) -> list[ResultTable]:
    cells = {
        "keys": lambda rows: f"{rows[0]['trials']:,}",
        "seconds per key": lambda rows: mean_of(rows, "seconds_a_trial", ".2g"),
        "best log10 p": lambda rows: mean_of(rows, "log10_p", ".1f"),
        f"years to p < {MARKED:g}": lambda rows: _years(rows[0], MARKED),
        "years to p < 2^-64": lambda rows: _years(rows[0], PROVEN),
    }
    notes = [
        "A projection that is chosen after the weights can read any message from "
        "them. Such an explicit key proves nothing by itself, and every report on it "
        "says so. Of n random secrets, the best has a p-value of about 1 / n. years: "
        "the time in which one core tries 1 / p secrets.",
        "A thousand cores find a key with p < 1e-9 a thousand times sooner. Only a "
        "commitment that is older than the model, or a p-value below 2^-64, rules out "
        "such a search.",
    ]
    title = "Forging a key for an unmarked network"
    groups = grouped(rows, key=None, bits=None)
    return [make_table(title, groups, ["forged key", "T"], cells, notes)]


def _years(row: Row, p: float) -> str:
    # A chosen projection needs no search.
    years = years_of_search(p, row["seconds_a_trial"]) if "curve" in row else 0
    return f"{years:.2g}"


def _forging_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    curves = {
        f"T = {row['bits']}": [(count, 10**p) for count, p in row["curve"]]
        for row in rows
        if "curve" in row
    }
    if not curves:
        return {}
    last = max(count for curve in curves.values() for count, _ in curve)
    curves["1 / n"] = [(count, 1 / count) for count in _counts(last)]
    return {
        "search": plots.plot_lines(
            curves, "number n of secrets tried", "smallest p-value", log_x=10, log_y=10
        )
    }


def recipients_of(settings: Settings) -> list[str]:
    """Returns the names of all recipients: 1,000 with five seeds."""
    return [f"customer-{number}" for number in range(200 * settings.seeds)]


def _recipient_runs(settings: Settings) -> Iterator[Run]:
    """Yields runs that mark copies for a fifth of the recipients: 200 with 5 seeds."""
    host = from_scratch(settings, "default", 0)
    for first in range(0, len(recipients_of(settings)) // 5, COPIES_PER_RUN):
        perform = partial(_traced, settings=settings, host=host, first=first)
        yield Run({"first": first}, perform, host)


def _traced(
    store: NetworkStore, settings: Settings, host: Training, first: int
) -> Measurements:
    """Marks copies, averages some of them, and tests all for every recipient's mark."""
    mark = host.own_mark
    names = recipients_of(settings)
    chosen = names[first : first + COPIES_PER_RUN]
    weights = {}
    for name in chosen:
        own = replace(mark, recipient=name)
        copy = Training(SECOND + first, COPY_EPOCHS, own, start=host, rate=COPY_RATE)
        model, _ = store.network(copy)
        weights[name] = model.get_weights()
    # The recipients whose copies are leaked: one, or several with averaged weights.
    leaks = [
        chosen[start : start + size]
        for size in (1, *AVERAGED)
        for start in range(0, COPIES_PER_RUN - size + 1, size)
    ]
    pictures = store.pictures(host.task)
    kernels, errors = [], []
    for leak in leaks:
        copies = [weights[name] for name in leak]
        means = [np.mean(arrays, axis=0) for arrays in zip(*copies, strict=True)]
        model.set_weights(means)
        kernels.append(_kernel(model, mark.layers[0]))
        errors.append(pictures.test_error(model))
    log10_p: list[dict[str, float]] = [{} for _ in leaks]
    for name in names:
        key = replace(mark, recipient=name).key()
        for kernel, of_leak in zip(kernels, log10_p, strict=True):
            of_leak[name] = corrected(detect(kernel, key).log10_p, len(names))
    results = zip(leaks, errors, log10_p, strict=True)
    return {
        "leaks": [
            {"mixed": len(leak), "test_error": error, **_named(leak, of_leak)}
            for leak, error, of_leak in results
        ]
    }


def _named(leak: Sequence[str], log10_p: dict[str, float]) -> Measurements:
    """Returns how many recipients are named, rightly and wrongly.

    Also the largest p-value of a recipient whose copy was leaked, and the smallest
    p-value of another one.
    """
    guilty = [log10_p[name] for name in leak]
    innocent = [p for name, p in log10_p.items() if name not in leak]
    return {
        "named": sum(p < log10(NAMED) for p in guilty),
        "innocent_named": sum(p < log10(NAMED) for p in innocent),
        "log10_p": max(guilty),
        "innocent_log10_p": min(innocent),
    }


def _recipient_tables(rows: Sequence[Row]) -> list[ResultTable]:
    leaks = [leak for row in rows for leak in row["leaks"]]
    groups = grouped(leaks, mixed=(1, *AVERAGED))
    cells = {
        "leaks": lambda leaks: str(len(leaks)),
        "error, %": lambda leaks: percent(leaks, "test_error"),
        "all named": lambda leaks: _share(leaks, leaks[0]["mixed"]),
        "at least one named": lambda leaks: _share(leaks, 1),
        "others named": lambda leaks: str(
            sum(leak["innocent_named"] for leak in leaks)
        ),
        "log10 p, weakest": lambda leaks: worst_of(leaks, "log10_p", ".0f"),
        "log10 p, others": lambda leaks: format(
            min(leak["innocent_log10_p"] for leak in leaks), "z.1f"
        ),
    }
    notes = [
        f"A recipient is named if p < {NAMED:g} after correction for the number of "
        "recipients. Each copy is the owner's marked network, fine-tuned for a few "
        "epochs with one recipient's key in the same layer. A leak is one copy, or the "
        "mean of the weights of several. weakest: the largest p of a recipient whose "
        "copy was leaked. others: the smallest p of a recipient whose copy was not."
    ]
    title = "Recipients: tracing a leaked copy"
    return [make_table(title, groups, ["copies averaged"], cells, notes)]


def _share(leaks: Sequence[Row], needed: int) -> str:
    named = sum(leak["named"] >= needed for leak in leaks)
    return f"{named} of {len(leaks)}"


def _kernel(model: Any, layer: str) -> Floats:
    return np.asarray(model.get_layer(layer).kernel, np.float64)


FORGING = Experiment(
    "forging",
    "Can anybody make a key that an unmarked network seems to carry?",
    _forging_runs,
    _forging_tables,
    _forging_figures,
)
RECIPIENTS = Experiment(
    "recipients",
    "Does the mark of a leaked copy identify its recipient, and nobody else?",
    _recipient_runs,
    _recipient_tables,
)
