"""The experiment `embedding`: marks that are embedded while training from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
        Training(seed=0, epochs=0),
        mark_to_test(settings, UNMARKED, 0),
        distribution=True,
    )


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    cost = make_table(
        "Embedding from scratch",
        grouped(rows, scheme=KINDS),
        ["mark"],
        COST
        | {"best error, %": lambda kind: percent(kind, "best_test_error")}
        | minus_unmarked(rows)
        | published_column(papers.EMBEDDING, "scheme"),
        notes=[
            f"{describe_seeds(rows)} best error: the smallest of all epochs, which the "
            "papers report. The unmarked networks are tested for a mark of kind "
            "'random'.",
            DIFFERENCES,
        ],
    )
    weights = make_table(
        "Weights of the marked layer, seed 0",
        grouped(having(rows, seed=0), scheme=(BEFORE, *KINDS)),
        ["mark"],
        {
            "std of kernel": lambda kind: mean_of(kind, "kernel_std", ".4f"),
            "std of mean filter": lambda kind: mean_of(kind, "mean_filter_std", ".5f"),
        },
    )
    return [cost, weights]


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    first = {row["scheme"]: row for row in having(rows, seed=0) if "outputs" in row}
    if not first:
        return {}
    schemes = [name for name in KINDS if name in first]
    return {
        "outputs": plots.plot_outputs(
            {name: first[name]["outputs"] for name in schemes}
        ),
        "curves": plots.plot_curves({name: first[name]["history"] for name in schemes}),
        "weights": plots.plot_weights(
            {name: row["histogram"] for name, row in first.items()}
        ),
    }


EXPERIMENT = Experiment(
    "embedding",
    "How does a mark change the host's test error and weights?",
    _runs,
    _tables,
    _figures,
)
