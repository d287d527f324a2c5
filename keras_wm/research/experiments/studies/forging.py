"""The experiment `forging`: keys that are made for an unmarked network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.attacks.forging import searched_keys, solved_key, years_of_search
from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments.experiment import Experiment, Run, network_run
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import UNMARKED, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    ResultTable,
    grouped,
    make_table,
    mean_of,
)
from keras_wm.research.experiments.training import from_scratch
from keras_wm.scheme.detection import detect
from keras_wm.utils.arrays import Floats
from keras_wm.verification.standing import MARKED, PROVEN

SEARCHED_BITS = (64, 256)
TRIALS = 2000
_STEPS_PER_DECADE = (1, 2, 5)


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


def _kernel(model: Any, layer: str) -> Floats:
    return np.asarray(model.get_layer(layer).kernel, np.float64)


EXPERIMENT = Experiment(
    "forging",
    "Can anybody make a key that an unmarked network seems to carry?",
    _forging_runs,
    _forging_tables,
    _forging_figures,
)
