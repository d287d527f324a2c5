"""The experiment `covertness`: can a mark be detected without its key?

The outsider knows the method, and trains networks with and without marks, with other
keys and seeds than the owner. So no two networks of this experiment share a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.detectability import (
    STATISTICS,
    kernel_statistics,
    sorted_weights,
)
from keras_wm.research.experiments.experiment import Experiment, Run
from keras_wm.research.experiments.measurement import measure_kernel, measure_mark
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.roc import (
    Fit,
    auc,
    auc_interval,
    best_by_chance,
    best_of,
    best_single,
    cross_fitted_auc,
    discriminant,
)
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import SCHEMES, UNMARKED, Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    COST,
    COUNT,
    ResultTable,
    grouped,
    having,
    make_table,
    minus_unmarked,
    unpaired_difference,
)
from keras_wm.research.experiments.training import (
    Training,
    convolutions,
    from_scratch,
    mark_to_test,
)
from keras_wm.utils.arrays import Floats

# With 5 seeds, 40 networks of each kind. The 95 % interval of an area of 0.5 is 0.33 to
# 0.67 for 20 against 20 networks, and 0.38 to 0.62 for 40 against 40.
NETWORKS_PER_SEED = 8
# Four fifths of 7 networks are still enough for the five folds of `cross_fitted_auc`.
MIN_NETWORKS = 7
LESS_NEIGHBOURS = ", minus neighbours"
FEATURES = (*STATISTICS, *(f"{name}{LESS_NEIGHBOURS}" for name in STATISTICS))
_COUNT = len(FEATURES)
CLASSIFIERS = ("all statistics", "sorted weights")
KINDS = (UNMARKED, *SCHEMES)
# Distance between the seeds of two kinds: more than the number of networks of a kind.
_SEEDS_APART = 1000

Area = tuple[float, float, float]


def _runs(settings: Settings) -> Iterator[Run]:
    for number in range(NETWORKS_PER_SEED * settings.seeds):
        for scheme in (UNMARKED, *settings.repeated_marks(number)):
            seed = _SEEDS_APART * KINDS.index(scheme) + number
            training = from_scratch(settings, scheme, seed)
            mark = mark_to_test(settings, scheme, seed)
            yield Run(
                {"scheme": scheme, "seed": seed},
                partial(_observe, training=training, mark=mark),
                training,
            )


def _observe(store: NetworkStore, training: Training, mark: Mark) -> Measurements:
    """Returns the statistics of the marked layer and its neighbours, and the cost."""
    model, _ = store.network(training)
    kernel = np.asarray(model.get_layer(mark.layers[0]).kernel)
    spread = measure_kernel(kernel)
    del spread["histogram"]
    neighbours = [
        kernel_statistics(neighbour) for neighbour in _neighbours(model, mark.layers[0])
    ]
    return {
        "test_error": store.pictures(training.task).test_error(model),
        **measure_mark(model, mark),
        **spread,
        "statistics": _rounded(kernel_statistics(kernel)),
        "neighbours": _rounded(
            {
                name: np.mean([statistics[name] for statistics in neighbours])
                for name in STATISTICS
            }
        ),
        "sorted_weights": [float(f"{weight:.5g}") for weight in sorted_weights(kernel)],
    }


def _rounded(numbers: dict[str, Any]) -> dict[str, float]:
    return {name: float(f"{number:.7g}") for name, number in numbers.items()}


def _neighbours(model: Any, layer: str) -> list[Any]:
    """Returns the kernels of the previous and next convolution of the same size."""
    own = model.get_layer(layer)
    alike = [
        convolution
        for convolution in convolutions(model)
        if convolution.kernel_size == own.kernel_size
    ]
    place = alike.index(own)
    neighbours = alike[max(0, place - 1) : place] + alike[place + 1 : place + 2]
    return [np.asarray(neighbour.kernel) for neighbour in neighbours]


def _features(rows: Sequence[Row]) -> Floats:
    """Returns one row per network, with its features.

    They are the statistics, the statistics minus those of the neighbours, and the
    sorted weights.
    """
    return np.array(
        [
            [
                *(row["statistics"][name] for name in STATISTICS),
                *(
                    row["statistics"][name] - row["neighbours"][name]
                    for name in STATISTICS
                ),
                *row["sorted_weights"],
            ]
            for row in rows
        ]
    )


def _by_kind(rows: Sequence[Row]) -> tuple[Floats, dict[str, Floats]]:
    """Returns the features of unmarked networks, and those of networks of each mark.

    Kinds with too few networks are left out.
    """
    features = {
        kind: _features(of_kind)
        for kind in KINDS
        if len(of_kind := having(rows, scheme=kind)) >= MIN_NETWORKS
    }
    unmarked = features.pop(UNMARKED, np.empty((0, 0)))
    return unmarked, features if len(unmarked) else {}


def _classifiers(features: Floats) -> dict[str, Fit]:
    """Returns the fits of the classifiers, by the names in `CLASSIFIERS`."""
    return {
        CLASSIFIERS[0]: discriminant(range(_COUNT)),
        CLASSIFIERS[1]: discriminant(range(_COUNT, features.shape[1])),
    }


def _areas(marked: Floats, unmarked: Floats) -> dict[str, Area]:
    """Returns the area of each detector, with its interval.

    For a single feature it is the plain area, which is below 0.5 where the mark lowers
    the feature. For a classifier it is cross-fitted.
    """
    areas = dict(zip(FEATURES, _single_areas(marked, unmarked), strict=True)) | {
        name: cross_fitted_auc(fit, marked, unmarked)
        for name, fit in _classifiers(marked).items()
    }
    return {
        name: (area, *auc_interval(area, len(marked), len(unmarked)))
        for name, area in areas.items()
    }


def _single_areas(marked: Floats, unmarked: Floats) -> Floats:
    areas: Floats = auc(marked[:, :_COUNT], unmarked[:, :_COUNT])
    return areas


def _outsiders_area(marked: Floats, unmarked: Floats) -> Area:
    """Returns the area of the detector that an outsider chooses, on other networks."""
    fits = [best_single(range(_COUNT)), *_classifiers(marked).values()]
    area = cross_fitted_auc(best_of(fits), marked, unmarked)
    return area, *auc_interval(area, len(marked), len(unmarked))


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    unmarked, marks = _by_kind(rows)
    return [
        _verdicts(unmarked, marks),
        _detectors({name: _areas(marked, unmarked) for name, marked in marks.items()}),
        make_table(
            "Weights of the layer",
            grouped(rows, scheme=KINDS),
            ["mark"],
            COUNT
            | {
                "std of kernel": lambda kind: _spread(kind, "kernel_std"),
                "std of mean filter": lambda kind: _spread(kind, "mean_filter_std"),
            }
            | COST
            | minus_unmarked(rows, unpaired_difference),
            [
                "Standard deviations: mean ± standard deviation over networks. minus "
                "unmarked: the networks share no seed, so they are not paired."
            ],
        ),
    ]


def _verdicts(unmarked: Floats, marks: dict[str, Floats]) -> ResultTable:
    lines = []
    for name, marked in marks.items():
        single = _single_areas(marked, unmarked)
        best = int(np.argmax(np.abs(single - 0.5)))
        lines.append(
            [
                name,
                f"{len(marked)} and {len(unmarked)}",
                _text(_outsiders_area(marked, unmarked)),
                FEATURES[best],
                f"{max(single[best], 1 - single[best]):.2f}",
                f"{best_by_chance(marked[:, :_COUNT], unmarked[:, :_COUNT]):.2f}",
            ]
        )
    if marks and len(unmarked) >= 2 * MIN_NETWORKS:
        area = _outsiders_area(unmarked[::2], unmarked[1::2])
        count = f"{len(unmarked[::2])} and {len(unmarked[1::2])}"
        lines.append(["no mark against no mark", count, _text(area), "", "", ""])
    return ResultTable(
        "Best detector of an outsider",
        ["mark", "networks", "AUC", "best in hindsight", "its AUC", "AUC by chance"],
        lines,
        [
            "AUC: the probability that a marked network scores above an unmarked one, "
            "with its 95 % interval. The outsider chooses a detector on four fifths of "
            "the networks and tests it on the rest; the AUC is the mean of 50 such "
            "trials. best in hindsight: the single feature with the AUC farthest from "
            "0.5 on all networks, and that AUC in its better direction. AUC by chance: "
            "95 % quantile of the best AUC of all features if the networks to be "
            "called marked are drawn at random.",
        ],
    )


def _detectors(areas: dict[str, dict[str, Area]]) -> ResultTable:
    marks = list(areas)
    differences = {name: f"{name}{LESS_NEIGHBOURS}" for name in STATISTICS}
    lines = [
        [
            detector,
            *(
                _text(areas[mark][name]) if name in areas[mark] else ""
                for mark in marks
                for name in (detector, differences.get(detector, ""))
            ),
        ]
        for detector in (*STATISTICS, *CLASSIFIERS)
    ]
    headings = [
        heading for mark in marks for heading in (mark, f"{mark}{LESS_NEIGHBOURS}")
    ]
    return ResultTable(
        "AUC of each detector",
        ["detector", *headings],
        lines if marks else [],
        [
            "AUC with its 95 % interval; below 0.5 if the mark lowers the feature. "
            "minus neighbours: the feature minus its mean over the previous and the "
            "next layer with the same kernel size. The last two rows are cross-fitted "
            "linear classifiers: of all features above, and of quantiles of the "
            "weights, the norms of filters and the singular values.",
        ],
    )


def _text(area: Area) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*area)


def _spread(rows: Sequence[Row], name: str) -> str:
    numbers = [row[name] for row in rows]
    mean = f"{np.mean(numbers):.5f}"
    return f"{mean} ± {np.std(numbers, ddof=1):.5f}" if len(numbers) > 1 else mean


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    unmarked, marks = _by_kind(rows)
    if not marks:
        return {}
    areas = {name: _areas(marked, unmarked) for name, marked in marks.items()}
    return {
        "weights": plots.plot_points(
            {
                kind: [(row["kernel_std"], row["mean_filter_std"]) for row in of_kind]
                for kind in KINDS
                if (of_kind := having(rows, scheme=kind))
            },
            (UNMARKED, "default"),
            "standard deviation of the kernel",
            "standard deviation of the mean filter",
        ),
        "detectors": plots.plot_areas(
            {
                "Marked layer": {
                    mark: {name: of_mark[name] for name in (*STATISTICS, *CLASSIFIERS)}
                    for mark, of_mark in areas.items()
                },
                "Minus neighbouring layers": {
                    mark: {
                        name: of_mark[f"{name}{LESS_NEIGHBOURS}"] for name in STATISTICS
                    }
                    for mark, of_mark in areas.items()
                },
            }
        ),
    }


EXPERIMENT = Experiment(
    "covertness",
    "Can a mark be detected without its key?",
    _runs,
    _tables,
    _figures,
)
