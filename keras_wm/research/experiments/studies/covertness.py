"""The experiment `covertness`: can a mark be detected without its key?

The outsider knows the method, and trains networks with and without marks, with other
keys and seeds than the owner. So no two networks of this experiment share a seed. She
has examples of the task, and looks along the main directions of each layer's inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.embedding.anchoring.kernel_inputs import KernelInputs, sampled_rows
from keras_wm.research.datasets import Pictures
from keras_wm.research.detectability import kernel_statistics, sorted_weights
from keras_wm.research.experiments import roc
from keras_wm.research.experiments.experiment import Experiment, Run, network_run
from keras_wm.research.experiments.measurement import measure_kernel, measure_network
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import UNMARKED, Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies import kernel_pairs
from keras_wm.research.experiments.studies.outsider import (
    CLASSIFIERS,
    KINDS,
    LESS_NEIGHBOURS,
    MIN_NETWORKS,
    Features,
    area_text,
)
from keras_wm.research.experiments.tables import (
    COST,
    COUNT,
    Cell,
    ResultTable,
    grouped,
    having,
    make_table,
    minus_unmarked,
    unpaired_difference,
)
from keras_wm.research.experiments.training import (
    convolutions,
    from_scratch,
    mark_to_test,
)
from keras_wm.research.input_statistics import input_statistics

# With 5 seeds, 40 networks of each kind. The 95 % interval of an area of 0.5 is 0.33 to
# 0.67 for 20 against 20 networks, and 0.38 to 0.62 for 40 against 40.
NETWORKS_PER_SEED = 8
# Pictures that are shown to a network, and rows of inputs from each of them.
_SHOWN, _ROWS = 256, 32
# Distance between the seeds of two kinds: more than the number of networks of a kind.
_SEEDS_APART = 1000


def _runs(settings: Settings) -> Iterator[Run]:
    for number in range(NETWORKS_PER_SEED * settings.seeds):
        for scheme in (UNMARKED, *settings.repeated_marks(number)):
            seed = _SEEDS_APART * KINDS.index(scheme) + number
            host = from_scratch(settings, scheme, seed)
            mark = mark_to_test(settings, scheme, seed)
            yield network_run(
                {"scheme": scheme, "seed": seed}, host, _observe, mark=mark
            )
    yield from kernel_pairs.runs(settings)


def _observe(model: Any, pictures: Pictures, mark: Mark) -> Measurements:
    """Returns the statistics of the marked layer and its neighbours, and the cost."""
    (layer,) = mark.layers
    kernel = np.asarray(model.get_layer(layer).kernel)
    spread = measure_kernel(kernel)
    del spread["histogram"]
    own, *neighbours = _statistics(model, _with_neighbours(model, layer), pictures)
    means = {
        name: np.mean([statistics[name] for statistics in neighbours]) for name in own
    }
    return {
        **measure_network(model, pictures, mark),
        **spread,
        "statistics": _rounded(own),
        "neighbours": _rounded(means),
        "sorted_weights": [float(f"{weight:.5g}") for weight in sorted_weights(kernel)],
    }


def _statistics(
    model: Any, layers: Sequence[Any], pictures: Pictures
) -> list[dict[str, float]]:
    """Returns the statistics of the kernels of some layers, also along their inputs."""
    readers = [KernelInputs.of(layer, layer.kernel) for layer in layers]
    shown = pictures.x_test[:_SHOWN]
    rows = zip(*sampled_rows(model, readers, shown, _ROWS), strict=True)
    kernels = [np.asarray(layer.kernel) for layer in layers]
    return [
        kernel_statistics(kernel)
        | input_statistics(kernel, np.concatenate(seen).astype(np.float64))
        for kernel, seen in zip(kernels, rows, strict=True)
    ]


def _rounded(numbers: dict[str, Any]) -> dict[str, float]:
    return {name: float(f"{number:.7g}") for name, number in numbers.items()}


def _with_neighbours(model: Any, name: str) -> list[Any]:
    """Returns a convolution, and the previous and the next one of the same size."""
    own = model.get_layer(name)
    alike = [
        convolution
        for convolution in convolutions(model)
        if convolution.kernel_size == own.kernel_size
    ]
    place = alike.index(own)
    return [own, *alike[max(0, place - 1) : place], *alike[place + 1 : place + 2]]


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    pairs, rows = kernel_pairs.separated(rows)
    features = Features.of(rows)
    spread: dict[str, Cell] = {
        "std of kernel": lambda kind: _spread(kind, "kernel_std"),
        "std of mean filter": lambda kind: _spread(kind, "mean_filter_std"),
    }
    cells = COUNT | spread | COST | minus_unmarked(rows, unpaired_difference)
    notes = [
        "Standard deviations: mean ± standard deviation over networks. minus "
        "unmarked: the networks share no seed, so they are not paired."
    ]
    groups = grouped(rows, scheme=KINDS)
    return [
        _verdicts(features),
        _detectors(features),
        make_table("Weights of the layer", groups, ["mark"], cells, notes),
        kernel_pairs.table(pairs),
    ]


def _verdicts(features: Features) -> ResultTable:
    unmarked, names, lines = features.unmarked, features.names, []
    for name, marked in features.marked.items():
        # The features without the sorted weights.
        kinds = marked[:, : len(names)], unmarked[:, : len(names)]
        single = roc.auc(*kinds)
        best = int(np.argmax(np.abs(single - 0.5)))
        lines.append(
            [
                name,
                f"{len(marked)} and {len(unmarked)}",
                features.outsiders_area(marked, unmarked),
                names[best],
                f"{max(single[best], 1 - single[best]):.2f}",
                f"{roc.best_by_chance(*kinds):.2f}",
            ]
        )
    if lines and len(unmarked) >= 2 * MIN_NETWORKS:
        halves = unmarked[::2], unmarked[1::2]
        count = "{} and {}".format(*map(len, halves))
        area = features.outsiders_area(*halves)
        lines.append(["no mark against no mark", count, area, "", "", ""])
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


def _detectors(features: Features) -> ResultTable:
    areas = {mark: features.areas(mark) for mark in features.marked}
    columns = [
        (mark, of_mark, suffix)
        for mark, of_mark in areas.items()
        for suffix in ("", LESS_NEIGHBOURS)
    ]
    lines = [
        [
            detector,
            *(
                area_text(of_mark[name])
                if (name := detector + suffix) in of_mark
                else ""
                for _, of_mark, suffix in columns
            ),
        ]
        for detector in (*features.statistics, *CLASSIFIERS)
    ]
    return ResultTable(
        "AUC of each detector",
        ["detector", *(mark + suffix for mark, _, suffix in columns)],
        lines if areas else [],
        [
            "AUC with its 95 % interval; below 0.5 if the mark lowers the feature. "
            "minus neighbours: the feature minus its mean over the previous and the "
            "next layer with the same kernel size. The last two rows are cross-fitted "
            "linear classifiers: of all features above, and of quantiles of the "
            "weights, the norms of filters and the singular values.",
        ],
    )


def _spread(rows: Sequence[Row], name: str) -> str:
    numbers = [row[name] for row in rows]
    mean = f"{np.mean(numbers):.5f}"
    return f"{mean} ± {np.std(numbers, ddof=1):.5f}" if len(numbers) > 1 else mean


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    _, rows = kernel_pairs.separated(rows)
    features = Features.of(rows)
    if not features.marked:
        return {}
    areas = {mark: features.areas(mark) for mark in features.marked}
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
                title: {
                    mark: {name: of_mark[name + suffix] for name in names}
                    for mark, of_mark in areas.items()
                }
                for title, suffix, names in (
                    ("Marked layer", "", (*features.statistics, *CLASSIFIERS)),
                    (
                        "Minus neighbouring layers",
                        LESS_NEIGHBOURS,
                        features.statistics,
                    ),
                )
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
