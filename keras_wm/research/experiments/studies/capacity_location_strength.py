"""The experiments `capacity`, `location` and `strength`: the owner's choices.

They vary the length of the message, the marked layers and the strength lambda.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.experiment import Experiment, Run, scratch_run
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import GROUPS, HEAD, SCHEMES, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    COST,
    ResultTable,
    grouped,
    make_table,
    mean_of,
    published_column,
)

BITS = (64, 256, 512, 1024, 2048)
# The marks that accept more bits than a filter has weights. In the others, each bit has
# its own columns of X.
UNBOUNDED = ("random", "default")
# Strengths lambda to try, by embedding loss.
DECADES = {
    "crossentropy": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "margin": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
}


def _capacity_runs(settings: Settings) -> Iterator[Run]:
    for group in GROUPS:
        for bits in BITS:
            for scheme in (mark for mark in settings.marks if mark in UNBOUNDED):
                labels = {"scheme": scheme, "group": group, "bits": bits, "seed": 0}
                layers = (group_layer(group),)
                yield scratch_run(settings, labels, layers=layers, bits=bits)


def _capacity_tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = grouped(rows, scheme=UNBOUNDED, group=GROUPS, bits=BITS)
    cells = COST | published_column(papers.CAPACITY, "bits", "group")
    notes = [
        "In WRN-10-4, a filter of the marked convolution has M = 576 weights in conv "
        "2, 1,152 in conv 3 and 2,304 in conv 4. Beyond T = 2 M, no mean filter "
        "satisfies all bits of a random projection (Cover 1965). Keyed filters in G "
        "groups have G times as many weights.",
        "Near the limit, the last bits need many training steps. The papers train for "
        "156,400.",
    ]
    return [make_table("Capacity", groups, ["mark", "group", "T"], cells, notes)]


def _capacity_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    curves = {
        ", ".join(texts): [(row["bits"], row["ber"]) for row in chosen]
        for texts, chosen in grouped(rows, scheme=None, group=GROUPS)
    }
    if not curves:
        return {}
    plot = plots.plot_lines(curves, "message length T", "bit error rate", log_x=2)
    return {"ber": plot}


def _location_runs(settings: Settings) -> Iterator[Run]:
    convolutions = tuple(map(group_layer, GROUPS))
    places: dict[str, tuple[str, ...]]
    places = {f"conv {group}": (group_layer(group),) for group in GROUPS}
    places |= {"conv 2, 3 and 4": convolutions, "classifier": (HEAD,)}
    for place, layers in places.items():
        for scheme in settings.marks:
            if all(settings.fits(scheme, layer) for layer in layers):
                labels = {"scheme": scheme, "place": place, "seed": 0}
                yield scratch_run(settings, labels, layers=layers)


def _location_tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = grouped(rows, place=None, scheme=SCHEMES)
    notes = ["direct needs filters of at least T weights, diff of at least 2 T."]
    return [make_table("Location of the mark", groups, ["layer", "mark"], COST, notes)]


def _strength_runs(settings: Settings) -> Iterator[Run]:
    for scheme in settings.marks:
        for strength in DECADES[SCHEMES[scheme].loss]:
            labels = {"scheme": scheme, "strength": strength, "seed": 0}
            yield scratch_run(settings, labels, True, strength=strength)


def _strength_tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = grouped(rows, scheme=SCHEMES, strength=None)
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
