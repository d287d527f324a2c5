"""The experiments `embedding`, `fine-tuning` and `distillation`: embedding a mark.

The mark is embedded while a network is trained from scratch, or trained again, or while
it learns from another network.
"""

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
    COUNT,
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
from keras_wm.research.experiments.training import (
    PICTURES,
    ROTATIONS,
    Training,
    embedded_mark,
    mark_to_test,
)

BEFORE = "before training"
KINDS = (UNMARKED, *SCHEMES)
DIFFERENCES = (
    "Differences from the papers: E_R decreases during the whole training, unless "
    "weight decay counteracts it; the papers train for 156,400 steps, and their "
    "reference code has no weight decay. Our messages are random, theirs consist of "
    "ones. Our network halves the resolution by strides, theirs by pooling."
)
CASES = {"same task": PICTURES, "other task": ROTATIONS}
# Added to the seed of the first training to get the seed of the second.
SECOND = 1000


def _embedding_runs(settings: Settings) -> Iterator[Run]:
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


def _embedding_tables(rows: Sequence[Row]) -> list[ResultTable]:
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


def _embedding_figures(rows: Sequence[Row]) -> dict[str, Figure]:
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


def _fine_tuning_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(settings.seeds):
        for case, task in CASES.items():
            first = Training(seed, settings.training_epochs, task=task)
            same = task == PICTURES
            marks = settings.marks if same else settings.repeated_marks(seed)
            epochs = settings.further_epochs
            for scheme in (UNMARKED, *marks):
                mark = embedded_mark(settings, scheme, seed)
                second = Training(SECOND + seed, epochs, mark, start=first)
                labels = {"case": case, "scheme": scheme, "seed": seed}
                yield trained_run(labels, second, mark_to_test(settings, scheme, seed))


def _distillation_runs(settings: Settings) -> Iterator[Run]:
    epochs = settings.training_epochs
    for seed in range(settings.seeds):
        teacher = Training(seed, epochs)
        for scheme in (UNMARKED, *settings.marks):
            mark = embedded_mark(settings, scheme, seed)
            student = Training(SECOND + seed, epochs, mark, teacher=teacher)
            labels = {"case": "distilled", "scheme": scheme, "seed": seed}
            yield trained_run(labels, student, mark_to_test(settings, scheme, seed))


def _cost(
    title: str, rows: Sequence[Row], published: dict[str, Cell], note: str
) -> list[ResultTable]:
    groups = grouped(rows, case=None, scheme=KINDS)
    cells = COUNT | COST | minus_unmarked(rows) | published
    return [make_table(title, groups, ["case", "mark"], cells, [note])]


EMBEDDING = Experiment(
    "embedding",
    "How does a mark change the host's test error and weights?",
    _embedding_runs,
    _embedding_tables,
    _embedding_figures,
)

FINE_TUNING = Experiment(
    "fine-tuning",
    "Can a trained network be marked by fine-tuning, on its task or another?",
    _fine_tuning_runs,
    lambda rows: _cost(
        "Embedding by fine-tuning",
        rows,
        published_column(papers.FINE_TUNING, "case", "scheme"),
        "Our other task is to predict by how many quarter turns a picture is rotated; "
        "the papers' other data set is Caltech-101. The unmarked networks are trained "
        "a second time too.",
    ),
)

DISTILLATION = Experiment(
    "distillation",
    "Can a network be marked while it is distilled, without labels?",
    _distillation_runs,
    lambda rows: _cost(
        "Embedding by distillation",
        rows,
        published_column(papers.DISTILLATION, "scheme"),
        "The unmarked teacher and its students have the same architecture.",
    ),
)
