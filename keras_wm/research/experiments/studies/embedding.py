"""The experiment `embedding`: marks that are embedded while training from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.experiment import (
    Experiment,
    Run,
    scratch_run,
    trained_run,
)
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import SCHEMES, UNMARKED
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    COST,
    Cell,
    ResultTable,
    describe_seeds,
    grouped,
    having,
    make_table,
    mean_of,
    minus_unmarked,
    percent,
    published_column,
)
from keras_wm.research.experiments.training import Training, mark_to_test

BEFORE = "before training"
KINDS = (UNMARKED, *SCHEMES)
DIFFERENCES = (
    "Differences from the papers: E_R decreases during the whole training, unless "
    "weight decay counteracts it; the papers train for 156,400 steps, and their "
    "reference code has no weight decay. Our messages are random, theirs consist of "
    "ones. Our network halves the resolution by strides, theirs by pooling."
)


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(settings.seeds):
        for scheme in (UNMARKED, *settings.marks):
            labels = {"scheme": scheme, "seed": seed}
            yield scratch_run(settings, labels, distribution=seed == 0)
    yield trained_run(
        {"scheme": BEFORE, "seed": 0},
        Training(0, epochs=0),
        mark_to_test(settings, UNMARKED, 0),
        distribution=True,
    )


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    networks = grouped(rows, scheme=KINDS)
    cost = COST | {"best error, %": lambda kind: percent(kind, "best_test_error")}
    cost |= minus_unmarked(rows) | published_column(papers.EMBEDDING, "scheme")
    notes = [
        f"{describe_seeds(rows)} best error: the smallest of all epochs, which the "
        "papers report. The unmarked networks are tested for a mark of kind 'random'.",
        DIFFERENCES,
    ]
    first = grouped(having(rows, seed=0), scheme=(BEFORE, *KINDS))
    weights: dict[str, Cell] = {
        "std of kernel": lambda kind: mean_of(kind, "kernel_std", ".4f"),
        "std of mean filter": lambda kind: mean_of(kind, "mean_filter_std", ".5f"),
    }
    return [
        make_table("Embedding from scratch", networks, ["mark"], cost, notes),
        make_table("Weights of the marked layer, seed 0", first, ["mark"], weights),
    ]


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    first = {row["scheme"]: row for row in having(rows, seed=0) if "outputs" in row}
    if not first:
        return {}
    trained = [name for name in KINDS if name in first]

    def recorded(schemes: Iterable[str], measurement: str) -> dict[str, Any]:
        return {name: first[name][measurement] for name in schemes}

    return {
        "outputs": plots.plot_outputs(recorded(trained, "outputs")),
        "curves": plots.plot_curves(recorded(trained, "history")),
        "weights": plots.plot_weights(recorded(first, "histogram")),
    }


EXPERIMENT = Experiment(
    "embedding",
    "How does a mark change the host's test error and weights?",
    _runs,
    _tables,
    _figures,
)
