"""Covertness: whether somebody without a key sees that a network is marked.

An outsider knows the method, and trains networks with and without marks, of keys and
seeds of her own. No two networks share a seed here, as hers and the owner's do not.
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
from keras_wm.research.experiments.columns import COST, COUNT
from keras_wm.research.experiments.experiment import Experiment, Run
from keras_wm.research.experiments.measurement import kernel_figures, mark_figures
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
from keras_wm.research.experiments.run_records import Figures, Row
from keras_wm.research.experiments.schemes import SCHEMES, UNMARKED, Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import ResultTable, difference, having, table
from keras_wm.research.experiments.training import (
    Training,
    convolutions,
    from_scratch,
    mark_of,
)
from keras_wm.utils.arrays import Floats

# Forty of a kind where other experiments have five networks: an area of 0.5 that 20
# against 20 show has an interval of 0.33 to 0.67, and 40 against 40 of 0.38 to 0.62.
NETWORKS_PER_SEED = 8
# Of these, four fifths can be parted into fifths again.
FEWEST = 7
LESS_NEIGHBOURS = ", - neighbours"
NUMBERS = (*STATISTICS, *(f"{name}{LESS_NEIGHBOURS}" for name in STATISTICS))
_COUNT = len(NUMBERS)
LEARNED = ("all statistics", "sorted weights")
KINDS = (UNMARKED, *SCHEMES)
# More than there are of a kind.
_SEEDS_APART = 1000

Area = tuple[float, float, float]


def _runs(settings: Settings) -> Iterator[Run]:
    for number in range(NETWORKS_PER_SEED * settings.seeds):
        for scheme in (UNMARKED, *settings.repeated_marks(number)):
            seed = _SEEDS_APART * KINDS.index(scheme) + number
            training = from_scratch(settings, scheme, seed)
            mark = mark_of(settings, scheme, seed)
            yield Run(
                {"scheme": scheme, "seed": seed},
                partial(_seen, training=training, mark=mark),
                training,
            )


def _seen(store: NetworkStore, training: Training, mark: Mark) -> Figures:
    """What an outsider sees of a layer and its neighbours, and what a mark costs."""
    model, _ = store.network(training)
    kernel = np.asarray(model.get_layer(mark.layers[0]).kernel)
    spread = kernel_figures(kernel)
    beside = [kernel_statistics(one) for one in _neighbours(model, mark.layers[0])]
    return {
        "test_error": store.pictures(training.task).test_error(model),
        **mark_figures(model, mark),
        "kernel_std": spread["kernel_std"],
        "mean_filter_std": spread["mean_filter_std"],
        "statistics": _rounded(kernel_statistics(kernel)),
        "neighbours": _rounded(
            {name: np.mean([one[name] for one in beside]) for name in STATISTICS}
        ),
        "sorted_weights": [float(f"{one:.5g}") for one in sorted_weights(kernel)],
    }


def _rounded(numbers: dict[str, Any]) -> dict[str, float]:
    return {name: float(f"{one:.7g}") for name, one in numbers.items()}


def _neighbours(model: Any, layer: str) -> list[Any]:
    """The kernels before and behind a layer's that are as high and wide as it."""
    own = model.get_layer(layer)
    alike = [one for one in convolutions(model) if one.kernel_size == own.kernel_size]
    place = alike.index(own)
    beside = alike[max(0, place - 1) : place] + alike[place + 1 : place + 2]
    return [np.asarray(one.kernel) for one in beside]


def _features(rows: Sequence[Row]) -> Floats:
    """A line for each network: statistics, what they exceed, sorted weights."""
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
    """The features of the unmarked networks, and those of each mark that has enough."""
    features = {
        kind: _features(found)
        for kind in KINDS
        if len(found := having(rows, scheme=kind)) >= FEWEST
    }
    unmarked = features.pop(UNMARKED, np.empty((0, 0)))
    return unmarked, features if len(unmarked) else {}


def _learned(features: Floats) -> dict[str, Fit]:
    """The classifiers, by the names in `LEARNED`."""
    return {
        LEARNED[0]: discriminant(range(_COUNT)),
        LEARNED[1]: discriminant(range(_COUNT, features.shape[1])),
    }


def _areas(marked: Floats, unmarked: Floats) -> dict[str, Area]:
    """The area of each detector, with its interval.

    Of a single number the area is the plain one, below 0.5 where the mark lowers it;
    of a classifier it is cross-fitted.
    """
    areas = dict(zip(NUMBERS, _single(marked, unmarked), strict=True)) | {
        name: cross_fitted_auc(fit, marked, unmarked)
        for name, fit in _learned(marked).items()
    }
    return {
        name: (area, *auc_interval(area, len(marked), len(unmarked)))
        for name, area in areas.items()
    }


def _single(marked: Floats, unmarked: Floats) -> Floats:
    areas: Floats = auc(marked[:, :_COUNT], unmarked[:, :_COUNT])
    return areas


def _outsiders_area(marked: Floats, unmarked: Floats) -> Area:
    """The area that an outsider reaches who chooses the detector herself."""
    fits = [best_single(range(_COUNT)), *_learned(marked).values()]
    area = cross_fitted_auc(best_of(fits), marked, unmarked)
    return area, *auc_interval(area, len(marked), len(unmarked))


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    unmarked, marks = _by_kind(rows)
    return [
        _verdicts(unmarked, marks),
        _detectors({name: _areas(one, unmarked) for name, one in marks.items()}),
        table(
            "Weights of the layer",
            [([kind], having(rows, scheme=kind)) for kind in KINDS],
            ["mark"],
            COUNT
            | {
                "std of the kernel": lambda one: _spread(one, "kernel_std", ".5f"),
                "std of the mean filter": lambda one: _spread(
                    one, "mean_filter_std", ".5f"
                ),
            }
            | COST
            | {"- unmarked": lambda one: _cost(one, having(rows, scheme=UNMARKED))},
            [
                "Mean ± standard deviation over networks. - unmarked: of networks that "
                "share no seed."
            ],
        ),
    ]


def _verdicts(unmarked: Floats, marks: dict[str, Floats]) -> ResultTable:
    lines = []
    for name, marked in marks.items():
        single = _single(marked, unmarked)
        best = int(np.argmax(np.abs(single - 0.5)))
        lines.append(
            [
                name,
                f"{len(marked)} and {len(unmarked)}",
                _text(_outsiders_area(marked, unmarked)),
                NUMBERS[best],
                f"{max(single[best], 1 - single[best]):.2f}",
                f"{best_by_chance(marked[:, :_COUNT], unmarked[:, :_COUNT]):.2f}",
            ]
        )
    if marks and len(unmarked) >= 2 * FEWEST:
        area = _outsiders_area(unmarked[::2], unmarked[1::2])
        count = f"{len(unmarked[::2])} and {len(unmarked[1::2])}"
        lines.append(["none, against none", count, _text(area), "", "", ""])
    return ResultTable(
        "What an outsider's best detector reaches",
        ["mark", "networks", "AUC", "best in hindsight", "its AUC", "by chance up to"],
        lines,
        [
            "AUC: the probability that a marked network scores above an unmarked one, "
            "with its 95 % interval, of an outsider who chooses her detector by four "
            "fifths of the networks and tries it on the rest: the mean of 50 trials. "
            "In hindsight: the number that tells these very networks apart best, "
            "either way round; one of all numbers does so by chance up to the last "
            "column (95 % of the ways to call as many of these networks marked).",
        ],
    )


def _detectors(areas: dict[str, dict[str, Area]]) -> ResultTable:
    marks = list(areas)
    beside = {name: f"{name}{LESS_NEIGHBOURS}" for name in STATISTICS}
    lines = [
        [
            detector,
            *(
                _text(areas[mark][name]) if name in areas[mark] else ""
                for mark in marks
                for name in (detector, beside.get(detector, ""))
            ),
        ]
        for detector in (*STATISTICS, *LEARNED)
    ]
    heads = [head for mark in marks for head in (mark, f"{mark}{LESS_NEIGHBOURS}")]
    return ResultTable(
        "What each detector reaches",
        ["detector", *heads],
        lines if marks else [],
        [
            "AUC with its 95 % interval; below 0.5 the mark lowers the number. "
            "- neighbours: less the mean of the same number of the layers before and "
            "behind, of the same kernel size. The last two lines, cross-fitted, are "
            "linear classifiers of all numbers above, and of quantiles of the weights, "
            "the norms of filters and the singular values.",
        ],
    )


def _text(area: Area) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*area)


def _spread(rows: Sequence[Row], name: str, form: str) -> str:
    numbers = [row[name] for row in rows]
    mean = format(np.mean(numbers), form)
    return f"{mean} ± {np.std(numbers, ddof=1):{form}}" if len(numbers) > 1 else mean


def _cost(marked: Sequence[Row], unmarked: Sequence[Row]) -> str:
    return "" if marked[0]["scheme"] == UNMARKED else difference(marked, unmarked)


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    unmarked, marks = _by_kind(rows)
    if not marks:
        return {}
    areas = {name: _areas(one, unmarked) for name, one in marks.items()}
    return {
        "weights": plots.plot_points(
            {
                kind: [(row["kernel_std"], row["mean_filter_std"]) for row in found]
                for kind in KINDS
                if (found := having(rows, scheme=kind))
            },
            (UNMARKED, "default"),
            "standard deviation of the kernel",
            "standard deviation of the mean filter",
        ),
        "detectors": plots.plot_areas(
            {
                "The layer": {
                    mark: {name: found[name] for name in (*STATISTICS, *LEARNED)}
                    for mark, found in areas.items()
                },
                "Less its neighbours": {
                    mark: {
                        name: found[f"{name}{LESS_NEIGHBOURS}"] for name in STATISTICS
                    }
                    for mark, found in areas.items()
                },
            }
        ),
    }


EXPERIMENT = Experiment(
    "covertness",
    "Can somebody without the key see that a network is marked?",
    _runs,
    _tables,
    _figures,
)
