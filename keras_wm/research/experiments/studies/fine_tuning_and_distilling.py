"""The experiments `fine-tuning` and `distillation`: marking an existing network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.experiment import Experiment, Run, trained_run
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import SCHEMES, UNMARKED
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    COST,
    COUNT,
    Cell,
    ResultTable,
    grouped,
    make_table,
    minus_unmarked,
    published_column,
)
from keras_wm.research.experiments.training import (
    PICTURES,
    ROTATIONS,
    Training,
    embedded_mark,
    mark_to_test,
)

CASES = {"same task": PICTURES, "other task": ROTATIONS}
# Added to the seed of the first training to get the seed of the second.
SECOND = 1000
# Why the papers' networks of the other task differ from ours.
OTHER_TASK = (
    "Our other task is to predict by how many quarter turns a picture is rotated; the "
    "papers' other data set is Caltech-101."
)


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
    groups = grouped(rows, case=None, scheme=(UNMARKED, *SCHEMES))
    cells = COUNT | COST | minus_unmarked(rows) | published
    return [make_table(title, groups, ["case", "mark"], cells, [note])]


FINE_TUNING = Experiment(
    "fine-tuning",
    "Can a trained network be marked by fine-tuning, on its task or another?",
    _fine_tuning_runs,
    lambda rows: _cost(
        "Embedding by fine-tuning",
        rows,
        published_column(papers.FINE_TUNING, "case", "scheme"),
        f"{OTHER_TASK} The unmarked networks are trained a second time too.",
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
