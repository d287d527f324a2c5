"""A part of `covertness`: do two marked kernels of one shape resemble each other?

With the same X in both kernels, their marks are the same, and anybody can see it. Each
kernel therefore has a slot of the key, with an X of its own. The pairs here are kernels
of two networks that share nothing but the key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_wm.research.detectability import PAIR_STATISTICS, pair_statistics
from keras_wm.research.experiments import roc
from keras_wm.research.experiments.experiment import Run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import SCHEMES, UNMARKED, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import ResultTable, having
from keras_wm.research.experiments.training import Training, from_scratch

# With 5 seeds, 10 pairs of each kind: the 95 % interval of an area of 0.5 is 0.27 to
# 0.73.
PAIRS_PER_SEED = 2
MARK = "default"
# Slot of the second kernel. In the same slot, a detector has to find the pair.
SLOTS = {"distinct slots": 1, "same slot": 0}
KINDS = (UNMARKED, *SLOTS)
# Distance between the seeds of two kinds: more than the number of networks of a kind.
_SEEDS_APART = 1000


def first_seed(kind: str) -> int:
    """Returns the smallest seed of the networks of a kind.

    Args:
        kind: `UNMARKED`, the name of a mark, or one of `SLOTS`.
    """
    return _SEEDS_APART * (UNMARKED, *SCHEMES, *SLOTS).index(kind)


def runs(settings: Settings) -> Iterator[Run]:
    """Yields the runs that compare two kernels; none without the default mark."""
    if MARK not in settings.marks:
        return
    for number in range(PAIRS_PER_SEED * settings.seeds):
        for kind in KINDS:
            first, second = _pair(settings, kind, number)
            yield _run({"pair": kind, "seed": number}, first, second, settings.group)


def _pair(settings: Settings, kind: str, number: int) -> tuple[Training, Training]:
    """Returns the trainings of two networks without a common seed."""
    if kind == UNMARKED:
        seed = first_seed(UNMARKED) + 2 * number
        return (
            from_scratch(settings, UNMARKED, seed),
            from_scratch(settings, UNMARKED, seed + 1),
        )
    owner = first_seed(MARK) + number
    seed, slot = first_seed(kind) + number, SLOTS[kind]
    return (
        from_scratch(settings, MARK, owner),
        from_scratch(settings, MARK, seed, owner=owner, slot=slot),
    )


def _run(labels: dict[str, Any], first: Training, second: Training, group: int) -> Run:
    def perform(store: NetworkStore) -> Measurements:
        kernels = []
        for training in (first, second):
            model, _ = store.network(training)
            kernels.append(np.asarray(model.get_layer(group_layer(group)).kernel))
        statistics = pair_statistics(*kernels)
        return {name: float(f"{number:.7g}") for name, number in statistics.items()}

    return Run(labels, perform, second)


def separated(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Returns the rows of pairs of kernels, and the others."""
    pairs = [row for row in rows if "pair" in row]
    return pairs, [row for row in rows if "pair" not in row]


def table(rows: Sequence[Row]) -> ResultTable:
    """Returns the areas of all detectors of two marked kernels."""
    of_kind = {kind: having(rows, pair=kind) for kind in KINDS}
    lines = [
        [name, *(_area(of_kind[kind], of_kind[UNMARKED], name) for kind in SLOTS)]
        for name in PAIR_STATISTICS
    ]
    count = min(map(len, of_kind.values()))
    return ResultTable(
        "Two marked kernels of one shape",
        ["detector", *SLOTS],
        lines if count else [],
        [
            f"AUC with its 95 % interval, from {count} pairs of each kind: the "
            "probability that two kernels with marks of one key score above two "
            "kernels without a mark. distinct slots: as keras_wm marks two kernels. "
            "same slot: a control, as if both kernels had the same X."
        ],
    )


def _area(marked: Sequence[Row], unmarked: Sequence[Row], name: str) -> str:
    if not marked or not unmarked:
        return ""
    scores = [[row[name] for row in rows] for rows in (marked, unmarked)]
    area = float(roc.auc(*scores))
    low, high = roc.auc_interval(area, len(marked), len(unmarked))
    return f"{area:.2f} [{low:.2f}, {high:.2f}]"
