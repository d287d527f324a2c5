"""Embedding into a network that exists: by fine-tuning it, and by distilling it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.columns import COST, COUNT, printed
from keras_wm.research.experiments.experiment import Experiment, Run, trained_run
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import SCHEMES, UNMARKED
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    ResultTable,
    having,
    paired_difference,
    table,
    values,
)
from keras_wm.research.experiments.training import (
    PICTURES,
    TURNS,
    Training,
    embedded,
    mark_of,
)

CASES = {"same task": PICTURES, "other task": TURNS}
# The second training goes on with other seeds than the first.
SECOND = 1000


def _fine_tuning_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(settings.seeds):
        for case, task in CASES.items():
            first = Training(seed, settings.training_epochs, task=task)
            same = task == PICTURES
            marks = settings.marks if same else settings.repeated_marks(seed)
            for scheme in (UNMARKED, *marks):
                second = Training(
                    SECOND + seed,
                    settings.further_epochs,
                    embedded(settings, scheme, seed),
                    start=first,
                )
                labels = {"case": case, "scheme": scheme, "seed": seed}
                yield trained_run(labels, second, mark_of(settings, scheme, seed))


def _distillation_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(settings.seeds):
        teacher = Training(seed, settings.training_epochs)
        for scheme in (UNMARKED, *settings.marks):
            student = Training(
                SECOND + seed,
                settings.training_epochs,
                embedded(settings, scheme, seed),
                teacher=teacher,
            )
            labels = {"case": "distilled", "scheme": scheme, "seed": seed}
            yield trained_run(labels, student, mark_of(settings, scheme, seed))


def _cost(
    title: str,
    rows: Sequence[Row],
    found_in_papers: dict[tuple[str, str], papers.PublishedResult],
    notes: Sequence[str],
) -> list[ResultTable]:
    groups = [
        ([case, scheme], having(rows, case=case, scheme=scheme))
        for case in values(rows, "case")
        for scheme in (UNMARKED, *SCHEMES)
    ]

    def difference(found: Sequence[Row]) -> str:
        case, scheme = found[0]["case"], found[0]["scheme"]
        unmarked = having(rows, case=case, scheme=UNMARKED)
        return "" if scheme == UNMARKED else paired_difference(found, unmarked)

    return [
        table(
            title,
            groups,
            ["case", "mark"],
            COUNT
            | COST
            | {
                "- unmarked": difference,
                **printed(
                    lambda row: found_in_papers.get((row["case"], row["scheme"]))
                ),
            },
            notes,
        )
    ]


FINE_TUNING = Experiment(
    "fine-tuning",
    "Can a network be marked that was trained before, on this task or another?",
    _fine_tuning_runs,
    lambda rows: _cost(
        "Embedding by fine-tuning",
        rows,
        papers.FINE_TUNING,
        [
            "The other task is to tell by how many quarters a picture is turned; in "
            "the papers it is Caltech-101. The unmarked one is a second training too."
        ],
    ),
)

DISTILLATION = Experiment(
    "distillation",
    "Can a network be marked while it is distilled, without any label?",
    _distillation_runs,
    lambda rows: _cost(
        "Embedding by distilling",
        rows,
        {("distilled", scheme): one for scheme, one in papers.DISTILLATION.items()},
        ["Teacher and student are of one architecture; the teacher is unmarked."],
    ),
)
