"""What the owner chooses: how many bits, where, how strongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.columns import COST, printed
from keras_wm.research.experiments.experiment import Experiment, Run, trained_run
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import GROUPS, HEAD, SCHEMES, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    ResultTable,
    having,
    mean_of,
    table,
    values,
)
from keras_wm.research.experiments.training import from_scratch, mark_of

BITS = (64, 256, 512, 1024, 2048)
# Those that need no more columns than X has can be asked for more bits than M.
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
    mark = mark_of(settings, labels["scheme"], labels["seed"], **options)
    return trained_run(labels, training, mark, distribution)


def _capacity_runs(settings: Settings) -> Iterator[Run]:
    for group in GROUPS:
        for bits in BITS:
            for scheme in (one for one in settings.marks if one in UNBOUNDED):
                options = {"layers": (group_layer(group),), "bits": bits}
                labels = {"scheme": scheme, "group": group, "bits": bits, "seed": 0}
                yield _scratch_run(settings, labels, options)


def _capacity_tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = [
        ([scheme, f"conv {group}", str(bits)], found)
        for scheme in UNBOUNDED
        for group in GROUPS
        for bits in BITS
        if (found := having(rows, scheme=scheme, group=group, bits=bits))
    ]
    of_papers = printed(
        lambda row: (
            papers.CAPACITY.get((row["bits"], row["group"]))
            if row["scheme"] == "random"
            else None
        )
    )
    return [
        table(
            "Capacity",
            groups,
            ["mark", "group", "T"],
            COST | of_papers,
            [
                "A filter of the second convolution of WRN-10-4 has M = 576, 1,152 and "
                "2,304 weights in conv 2, 3 and 4. Beyond T = 2 M no mean filter can "
                "satisfy all bits of a random projection (Cover 1965); G groups of "
                "keyed filters have G times as many weights to do so.",
                "Near the limit the last bits take many steps: 156,400 in the papers.",
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
    notes = ["direct needs T weights in a filter, and diff 2 T."]
    return [table("Where to embed", groups, ["layer", "mark"], COST, notes)]


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
    cells = COST | {"std of the kernel": lambda one: mean_of(one, "kernel_std", ".4f")}
    return [table("Strength", groups, ["mark", "lambda"], cells)]


CAPACITY = Experiment(
    "capacity",
    "How many bits can a layer hold?",
    _capacity_runs,
    _capacity_tables,
    _capacity_figures,
)
LOCATION = Experiment(
    "location", "Into which layer should a mark go?", _location_runs, _location_tables
)
STRENGTH = Experiment(
    "strength",
    "How strongly should a mark be embedded?",
    _strength_runs,
    _strength_tables,
)
