"""One key in several layers: what is left when an attacker draws some of them anew.

Nothing that is in a layer alone outlasts an attacker who throws that layer away and
trains another in its place. The layers that he does not know of, he leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations

from keras_wm.research.attacks.adaptive import reset
from keras_wm.research.experiments.columns import COUNT
from keras_wm.research.experiments.experiment import Experiment, Run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Figures, Row
from keras_wm.research.experiments.schemes import GROUPS, group_layer
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies.resistance import MOST_SEEDS, NOTHING
from keras_wm.research.experiments.tables import (
    Cell,
    ResultTable,
    having,
    percent,
    table,
    values,
    worst_of,
)
from keras_wm.research.experiments.training import Training, from_scratch
from keras_wm.verification.verification import verify

LAYERS = tuple(map(group_layer, GROUPS))
RATE = 0.05


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MOST_SEEDS)):
        host = from_scratch(settings, "default", seed, layers=LAYERS)
        for count in range(len(LAYERS) + 1):
            for layers in combinations(LAYERS, count):
                labels = {"seed": seed, "drawn": ", ".join(layers) or NOTHING}
                yield Run(labels, partial(_drawn, host=host, layers=layers), host)


def _drawn(store: NetworkStore, host: Training, layers: tuple[str, ...]) -> Figures:
    """Draws layers of a network anew, and looks for the mark in all marked ones."""
    assert host.mark is not None  # noqa: S101 (the host has the owner's)
    model, _ = store.network(host)
    pictures = store.pictures(host.task)
    if layers:
        model = reset(layers)(model, pictures, RATE, host.seed)
    key = host.mark.key()
    together = verify(model, key, LAYERS)
    return {
        "test_error": pictures.test_error(model),
        "ber": together.ber,
        "log10_p": together.log10_p,
        "best_log10_p": verify(model, key).log10_p,
    }


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    groups = [([drawn], having(rows, drawn=drawn)) for drawn in values(rows, "drawn")]
    cells: dict[str, Cell] = COUNT | {
        "error": lambda found: percent(found, "test_error"),
        "BER, together": lambda found: worst_of(found, "ber", ".2g"),
        "log p, together": lambda found: worst_of(found, "log10_p", "z.0f"),
        "log p, one layer": lambda found: worst_of(found, "best_log10_p", "z.0f"),
    }
    notes = [
        f"The default mark of one key in {', '.join(LAYERS)}. Together: the scores of "
        "all three added, one p-value. One layer: the smallest p-value of any layer, "
        "corrected for all that were tried. The attacker draws layers anew and trains "
        f"them alone, at a learning rate of {RATE:g}."
    ]
    title = "One key in several layers, of which some are drawn anew"
    return [table(title, groups, ["drawn anew"], cells, notes)]


EXPERIMENT = Experiment(
    "several-layers",
    "What is left of a mark in several layers when some of them are drawn anew?",
    _runs,
    _tables,
)
