"""The experiment `several-layers`: one key in several layers, some re-initialised.

A mark in a single layer does not survive an attacker who re-initialises that layer and
trains it again. Layers that the attacker does not know to be marked are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from keras_wm.research.attacks.adaptive import reset
from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments.experiment import Experiment, Run, network_run
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import GROUPS, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies.resistance import MAX_SEEDS, NOTHING
from keras_wm.research.experiments.tables import (
    COUNT,
    Cell,
    ResultTable,
    grouped,
    make_table,
    percent,
    worst_of,
)
from keras_wm.research.experiments.training import Training, from_scratch
from keras_wm.verification.verification import verify

LAYERS = tuple(map(group_layer, GROUPS))
RATE = 0.05


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MAX_SEEDS)):
        host = from_scratch(settings, "default", seed, layers=LAYERS)
        for count in range(len(LAYERS) + 1):
            for layers in combinations(LAYERS, count):
                labels = {"seed": seed, "drawn": ", ".join(layers) or NOTHING}
                yield network_run(
                    labels, host, _reinitialised, host=host, layers=layers
                )


def _reinitialised(
    model: Any, pictures: Pictures, host: Training, layers: tuple[str, ...]
) -> Measurements:
    """Re-initialises layers of a network, trains them, and tests for the mark."""
    if layers:
        model = reset(layers)(model, pictures, RATE, host.seed)
    key = host.own_mark.key()
    joint = verify(model, key, LAYERS)
    return {
        "test_error": pictures.test_error(model),
        "ber": joint.ber,
        "log10_p": joint.log10_p,
        "best_log10_p": verify(model, key).log10_p,
    }


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    cells: dict[str, Cell] = COUNT | {
        "error, %": lambda rows: percent(rows, "test_error"),
        "BER, joint": lambda rows: worst_of(rows, "ber", ".2g"),
        "log10 p, joint": lambda rows: worst_of(rows, "log10_p", "z.0f"),
        "log10 p, best layer": lambda rows: worst_of(rows, "best_log10_p", "z.0f"),
    }
    notes = [
        f"The default mark of one key in {', '.join(LAYERS)}. joint: one p-value from "
        "the added scores of all three layers. best layer: the smallest p-value of any "
        "layer, corrected for the number of layers tested. The attacker re-initialises "
        f"layers and trains only them, at a learning rate of {RATE:g}."
    ]
    title = "One key in several layers, some of them re-initialised"
    groups = grouped(rows, drawn=None)
    return [make_table(title, groups, ["re-initialised"], cells, notes)]


EXPERIMENT = Experiment(
    "several-layers",
    "Does a mark in several layers survive if some are re-initialised?",
    _runs,
    _tables,
)
