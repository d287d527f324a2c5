"""Embedding from scratch: what each mark costs, and what it looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.experiments import published_results as papers
from keras_wm.research.experiments.columns import COST, printed
from keras_wm.research.experiments.experiment import Experiment, Run, trained_run
from keras_wm.research.experiments.run_records import Row
from keras_wm.research.experiments.schemes import SCHEMES, UNMARKED
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    ResultTable,
    having,
    mean_of,
    paired_difference,
    percent,
    seeds_of,
    table,
)
from keras_wm.research.experiments.training import Training, from_scratch, mark_of

BEFORE = "before training"
DIFFERENCES = (
    "E_R falls for as long as a network is trained, unless weight decay pushes back: "
    "the papers take 156,400 steps, and their reference code has no weight decay. "
    "Messages are random here and of ones alone there; here strides halve the "
    "resolution, and pooling there."
)


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(settings.seeds):
        for scheme in (UNMARKED, *settings.marks):
            yield trained_run(
                {"scheme": scheme, "seed": seed},
                from_scratch(settings, scheme, seed),
                mark_of(settings, scheme, seed),
                distribution=seed == 0,
            )
    untrained = Training(seed=0, epochs=0)
    yield trained_run(
        {"scheme": BEFORE, "seed": 0},
        untrained,
        mark_of(settings, UNMARKED, 0),
        distribution=True,
    )


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    unmarked = having(rows, scheme=UNMARKED)
    trained = [(scheme, having(rows, scheme=scheme)) for scheme in (UNMARKED, *SCHEMES)]
    cost = table(
        "Embedding from scratch",
        [([scheme], found) for scheme, found in trained],
        ["mark"],
        COST
        | {
            "best": lambda found: percent(found, "best_test_error"),
            "- unmarked": lambda found: (
                "" if found[0] in unmarked else paired_difference(found, unmarked)
            ),
            **printed(lambda row: papers.EMBEDDING.get(row["scheme"])),
        },
        notes=[
            f"{seeds_of(rows)} The papers print the best error of all epochs. The "
            "unmarked network is read with a key of kind 'random'.",
            DIFFERENCES,
        ],
    )
    before = having(rows, scheme=BEFORE)
    weights = table(
        "Weights of the layer, seed 0",
        [
            ([name], having(found, seed=0))
            for name, found in [(BEFORE, before), *trained]
        ],
        ["mark"],
        {
            "std of the kernel": lambda found: mean_of(found, "kernel_std", ".4f"),
            "std of the mean filter": lambda found: mean_of(
                found, "mean_filter_std", ".5f"
            ),
        },
    )
    return [cost, weights]


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    first = {row["scheme"]: row for row in having(rows, seed=0) if "outputs" in row}
    if not first:
        return {}
    schemes = [one for one in (UNMARKED, *SCHEMES) if one in first]
    return {
        "outputs": plots.plot_outputs({one: first[one]["outputs"] for one in schemes}),
        "curves": plots.plot_curves({one: first[one]["history"] for one in schemes}),
        "weights": plots.plot_weights(
            {name: row["histogram"] for name, row in first.items()}
        ),
    }


EXPERIMENT = Experiment(
    "embedding",
    "What does a mark cost the host, and what does it look like?",
    _runs,
    _tables,
    _figures,
)
