"""The experiments `capacity`, `location` and `strength`: the owner's choices.

They vary the length of the message, the marked layers and the strength lambda.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.experiment import Experiment, Run, trained_run
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import GROUPS, HEAD, SCHEMES, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    COST,
    ResultTable,
    having,
    make_table,
    mean_of,
    published_column,
    values,
)
from keras_wm.research.experiments.training import from_scratch, mark_to_test

BITS = (64, 256, 512, 1024, 2048)
# The marks that accept more bits than a filter has weights. In the others, each bit has
# its own columns of X.
UNBOUNDED = ("random", "default")
DECADES = {
    "direct": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "diff": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "random": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "default": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
}


def _scratch_run(
    settings: Settings,
    labels: dict[str, Any],
    options: dict[str, Any],
    distribution: bool = False,
) -> Run:
    training = from_scratch(settings, labels["scheme"], labels["seed"], **options)
    mark = mark_to_test(settings, labels["scheme"], labels["seed"], **options)
    return trained_run(labels, training, mark, distribution)


def _capacity_runs(settings: Settings) -> Iterator[Run]:
    for group in GROUPS:
        for bits in BITS:
            for scheme in (mark for mark in settings.marks if mark in UNBOUNDED):
                options = {"layers": (group_layer(group),), "bits": bits}
                labels = {"scheme": scheme, "group": group, "bits": bits, "seed": 0}
                yield _scratch_run(settings, labels, options)


def _capacity_tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = [
        ([scheme, f"conv {group}", str(bits)], chosen)
        for scheme in UNBOUNDED
        for group in GROUPS
        for bits in BITS
        if (chosen := having(rows, scheme=scheme, group=group, bits=bits))
    ]
    published = published_column(
        lambda row: (
            papers.CAPACITY.get((row["bits"], row["group"]))
            if row["scheme"] == "random"
            else None
        )
    )
    return [
        make_table(
            "Capacity",
            groups,
            ["mark", "group", "T"],
            COST | published,
            [
                "In WRN-10-4, a filter of the marked convolution has M = 576 weights "
                "in conv 2, 1,152 in conv 3 and 2,304 in conv 4. Beyond T = 2 M, no "
                "mean filter satisfies all bits of a random projection (Cover 1965). "
                "Keyed filters in G groups have G times as many weights.",
                "Near the limit, the last bits need many training steps. The papers "
                "train for 156,400.",
            ],
        )
    ]


def _capacity_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    if not rows:
        return {}
    curves = {
        f"{scheme}, conv {group}": [
            (row["bits"], row["ber"])
            for row in having(rows, scheme=scheme, group=group)
        ]
        for scheme in values(rows, "scheme")
        for group in GROUPS
    }
    return {
        "ber": plots.plot_lines(curves, "message length T", "bit error rate", log_x=2)
    }


def _location_runs(settings: Settings) -> Iterator[Run]:
    convolutions = tuple(group_layer(group) for group in GROUPS)
    places: dict[str, tuple[str, ...]]
    places = {f"conv {group}": (group_layer(group),) for group in GROUPS}
    places |= {"conv 2, 3 and 4": convolutions, "classifier": (HEAD,)}
    for place, layers in places.items():
        for scheme in settings.marks:
            if all(settings.fits(scheme, layer) for layer in layers):
                labels = {"scheme": scheme, "place": place, "seed": 0}
                yield _scratch_run(settings, labels, {"layers": layers})


def _location_tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = [
        ([place, scheme], having(rows, place=place, scheme=scheme))
        for place in values(rows, "place")
        for scheme in SCHEMES
    ]
    notes = ["direct needs filters of at least T weights, diff of at least 2 T."]
    return [make_table("Location of the mark", groups, ["layer", "mark"], COST, notes)]


def _strength_runs(settings: Settings) -> Iterator[Run]:
    for scheme in settings.marks:
        for strength in DECADES[scheme]:
            labels = {"scheme": scheme, "strength": strength, "seed": 0}
            yield _scratch_run(settings, labels, {"strength": strength}, True)


def _strength_tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = [
        ([scheme, f"{strength:g}"], having(rows, scheme=scheme, strength=strength))
        for scheme in SCHEMES
        for strength in DECADES[scheme]
    ]
    cells = COST | {"std of kernel": lambda rows: mean_of(rows, "kernel_std", ".4f")}
    return [make_table("Strength", groups, ["mark", "lambda"], cells)]


CAPACITY = Experiment(
    "capacity",
    "How many bits can a layer hold?",
    _capacity_runs,
    _capacity_tables,
    _capacity_figures,
)
LOCATION = Experiment(
    "location", "Which layer should carry the mark?", _location_runs, _location_tables
)
STRENGTH = Experiment(
    "strength",
    "How strongly should a mark be embedded?",
    _strength_runs,
    _strength_tables,
)
