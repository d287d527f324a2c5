"""A part of `covertness`: do two marked kernels of one shape resemble each other?

With the same X in both kernels, their marks are the same, and anybody can see it. Each
kernel therefore has a slot of the key, with an X of its own. The kernels here are
independent random weights, with the smallest change that embeds the default mark.
Nothing is trained: two kernels of trained networks resemble each other less, because
training adds what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from keras_wm.research.detectability import PAIR_STATISTICS, pair_statistics
from keras_wm.research.experiments import roc
from keras_wm.research.experiments.experiment import Run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import UNMARKED, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies.without_training import (
    STRENGTHS,
    embedded_without_training,
)
from keras_wm.research.experiments.tables import ResultTable, having
from keras_wm.research.experiments.training import mark_to_test
from keras_wm.utils.arrays import Floats

# With 5 seeds, 20 pairs of each kind. The 95 % interval of an area of 0.5 is 0.33 to
# 0.67.
PAIRS_PER_SEED = 4
MARK = "default"
# Slots of the two kernels. In the same slot, a detector has to find the pair.
SLOTS = {"distinct slots": (0, 1), "same slot": (0, 0)}
KINDS = (UNMARKED, *SLOTS)


def runs(settings: Settings) -> Iterator[Run]:
    """Yields the runs that compare two kernels; none without the default mark."""
    if MARK not in settings.marks:
        return
    for number in range(PAIRS_PER_SEED * settings.seeds):
        for kind in KINDS:
            labels = {"pair": kind, "seed": number}
            yield Run(labels, partial(_compare, settings, kind, number))


def _compare(
    settings: Settings, kind: str, number: int, _store: NetworkStore
) -> Measurements:
    kernels = pair_of_kernels(settings, kind, number)
    statistics = pair_statistics(*kernels)
    return {name: float(f"{value:.7g}") for name, value in statistics.items()}


def pair_of_kernels(settings: Settings, kind: str, number: int) -> list[Floats]:
    """Returns two kernels of the marked layer's shape.

    Args:
        settings: Settings of the study.
        kind: One of `KINDS`.
        number: Number of the pair, which has a key of its own.
    """
    rng = np.random.default_rng([KINDS.index(kind), number])
    size = settings.filter_size(group_layer(settings.group))
    width = size // 9
    kernels: list[Floats] = []
    for slot in SLOTS.get(kind, (None, None)):
        # Initial weights with the variance of He et al. (2015).
        kernel = rng.normal(0, np.sqrt(2 / size), size=(3, 3, width, width))
        if slot is not None:
            mark = mark_to_test(settings, MARK, number, slot=slot)
            kernel = embedded_without_training(kernel, mark, max(STRENGTHS))
        kernels.append(kernel)
    return kernels


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
            "same slot: a control, as if both kernels had the same X. The marks are "
            "embedded into random weights by the smallest change."
        ],
    )


def _area(marked: Sequence[Row], unmarked: Sequence[Row], name: str) -> str:
    if not marked or not unmarked:
        return ""
    scores = [[row[name] for row in rows] for rows in (marked, unmarked)]
    area = float(roc.auc(*scores))
    low, high = roc.auc_interval(area, len(marked), len(unmarked))
    return f"{area:.2f} [{low:.2f}, {high:.2f}]"
