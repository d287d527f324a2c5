"""Resistance: what every attack leaves of the papers' mark and of the default.

An attack only counts if the network is worth having after it, so what it leaves is
told by how much test error it costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import log10, nan

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.catalogue import families, select_families
from keras_wm.research.attacks.overwriting import overwriting
from keras_wm.research.evaluation.evaluator import TOLERANCE
from keras_wm.research.evaluation.outcomes import Subject, outcomes
from keras_wm.research.experiments.columns import COST, COUNT
from keras_wm.research.experiments.experiment import Experiment, Run, trained_run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Figures, Row
from keras_wm.research.experiments.schemes import Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    Cell,
    ResultTable,
    having,
    table,
    values,
    worst_of,
)
from keras_wm.research.experiments.training import Training, from_scratch, mark_of
from keras_wm.verification.result import MARKED

# Hundreds of trainings a network.
MOST_SEEDS = 3
# Of each attack that trains: the weakest, the strongest and one between.
TRAINED_STRENGTHS = 3
# What an attack may cost in test error, as a share: one that mends the network, and
# one that does not, such as noise.
LITTLE, MUCH = TOLERANCE, 0.05
NOTHING = "none"
_GAP = (nan, nan)
_LEFT = ("strength", "test_error", "ber", "log10_p", "aligned", "refused")


def attacks_on(
    layer: str, names: Sequence[str] | None = None
) -> dict[str, tuple[Attack, ...]]:
    """The attacks that are tried, by family; but for collusion, which needs copies.

    Args:
        layer: The name of the marked layer, which the attacker knows. Who does not
            overwrites every layer.
        names: The families that are wanted. `None` is all.

    Raises:
        ValueError: If there is no such family.
    """
    everywhere = (overwriting("mean"), overwriting("keyed"))
    every = families(layer) | {"overwriting every layer": everywhere}
    return {
        family: tuple(
            attack.thinned(TRAINED_STRENGTHS) if attack.needs_data else attack
            for attack in attacks
        )
        for family, attacks in select_families(every, names).items()
    }


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MOST_SEEDS)):
        for scheme in settings.main_marks:
            host = from_scratch(settings, scheme, seed)
            mark = mark_of(settings, scheme, seed)
            labels = {"scheme": scheme, "seed": seed}
            yield trained_run(labels | {"attack": NOTHING}, host, mark)
            (layer,) = mark.layers
            for family, attacks in attacks_on(layer, settings.families).items():
                for attack in attacks:
                    which = {"family": family, "attack": attack.name}
                    attacked = partial(
                        _attacked, host=host, mark=mark, family=family, attack=attack
                    )
                    yield Run(labels | which, attacked, host)


def _attacked(
    store: NetworkStore, host: Training, mark: Mark, family: str, attack: Attack
) -> Figures:
    """What one attack left, a point for each strength."""
    model, _ = store.network(host)
    subject = Subject(model, mark.key(), mark.layers[0], owners=model)
    pictures = store.pictures(host.task)
    found = outcomes(subject, {family: [attack]}, pictures, 1)
    return {"points": [{name: getattr(one, name) for name in _LEFT} for one in found]}


def _points(rows: Sequence[Row]) -> list[Row]:
    """What each attack of each strength left, with the test error that it cost."""
    before = {
        (row["scheme"], row["seed"]): row["test_error"]
        for row in having(rows, attack=NOTHING)
    }
    return [
        {**row, **point, "cost": point["test_error"] - before[network]}
        for row in rows
        # Of a study that was stopped there may be none before.
        if (network := (row["scheme"], row["seed"])) in before
        for point in row.get("points", ())
        if not point["refused"]
    ]


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    attacked = _points(rows)
    schemes = values(rows, "scheme")
    before = [
        ([scheme], having(rows, scheme=scheme, attack=NOTHING)) for scheme in schemes
    ]
    groups = _by_attack(attacked)
    cells: dict[str, Cell] = {}
    for scheme in schemes:
        cells |= {
            f"{scheme} cost": partial(_least_cost, scheme=scheme),
            f"{scheme} BER": partial(_worst_ber, scheme=scheme),
            f"{scheme} log p": partial(_worst_p, scheme=scheme, most=LITTLE),
            f"{scheme} log p, 5": partial(_worst_p, scheme=scheme, most=MUCH),
        }
    notes = [
        f"Of every attack that trains {TRAINED_STRENGTHS} strengths. Cost: the points "
        "of test error that it costs at the least. BER and log p: the largest over "
        "networks and strengths after which the error is up to 2 points higher, and up "
        "to 5 points in the last column; a dash where it never is. p is corrected for "
        "the places tried. With an asterisk the mark was found by alignment with the "
        "owner's own network, which is tried where bits are lost."
    ]
    return [
        table("Before any attack", before, ["mark"], COUNT | COST),
        table("What attacks leave", groups, ["attack"], cells, notes),
        _removed(attacked, schemes),
    ]


def _by_attack(points: Sequence[Row]) -> list[tuple[list[str], list[Row]]]:
    """By attack, and where one is in two families, with other layers, by family too."""
    families_of: dict[str, list[str]] = {}
    for family in values(points, "family"):
        for attack in values(having(points, family=family), "attack"):
            families_of.setdefault(attack, []).append(family)
    return [
        (
            [attack if family == first else f"{attack} ({family})"],
            having(points, family=family, attack=attack),
        )
        for attack, (first, *others) in families_of.items()
        for family in (first, *others)
    ]


def _least_cost(rows: Sequence[Row], scheme: str) -> str:
    costs = [row["cost"] for row in having(rows, scheme=scheme)]
    return f"{100 * min(costs):+.1f}" if costs else "-"


def _counted(rows: Sequence[Row], scheme: str, most: float) -> list[Row]:
    """What is left of networks that are worth having."""
    return [row for row in having(rows, scheme=scheme) if row["cost"] <= most]


def _worst_ber(rows: Sequence[Row], scheme: str) -> str:
    return worst_of(_counted(rows, scheme, LITTLE), "ber", ".2g")


def _worst_p(rows: Sequence[Row], scheme: str, most: float) -> str:
    counted = _counted(rows, scheme, most)
    if not counted:
        return "-"
    worst = max(counted, key=lambda row: row["log10_p"])
    return f"{worst['log10_p']:z.0f}{'*' if worst['aligned'] else ''}"


def _removed(attacked: Sequence[Row], schemes: Sequence[str]) -> ResultTable:
    """The attacks that win, and what they cost where they cost least."""
    lines = []
    for scheme in schemes:
        won = [
            row
            for row in _counted(attacked, scheme, LITTLE)
            if row["log10_p"] >= log10(MARKED)
        ]
        for attack, found in _by_attack(won):
            cheapest = min(found, key=lambda row: row["cost"])
            lines.append(
                [
                    scheme,
                    *attack,
                    f"{cheapest['strength']:g}",
                    f"{100 * cheapest['cost']:+.1f}",
                    f"{cheapest['log10_p']:z.1f}",
                    str(len({row["seed"] for row in found})),
                ]
            )
    columns = ["mark", "attack", "strength", "cost", "log p", "networks"]
    notes = [
        f"The mark is not found any more (p > {MARKED:g}), and the network is worth "
        "having: where it costs least, and in how many networks."
    ]
    return ResultTable("What removes a mark", columns, lines, notes)


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    attacked = _points(rows)
    return {
        scheme: _evidence(
            having(attacked, scheme=scheme),
            having(rows, scheme=scheme, attack=NOTHING),
        )
        for scheme in values(attacked, "scheme")
    }


def _evidence(attacked: Sequence[Row], before: Sequence[Row]) -> Figure:
    """Accuracy against evidence, of one mark: a line for each network attacked."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for seed in values(attacked, "seed"):
        for row in having(attacked, seed=seed):
            of_family = points.setdefault(row["family"], {})
            of_attack = of_family.setdefault(row["attack"], [])
            of_attack.append((-row["log10_p"], 1 - row["test_error"]))
        for of_family in points.values():
            for of_attack in of_family.values():
                of_attack.append(_GAP)
    accuracy = 1 - float(np.mean([row["test_error"] for row in before]))
    evidence = -float(np.mean([row["log10_p"] for row in before]))
    return plots.plot_evidence(
        points,
        start=(evidence, accuracy),
        found=-log10(MARKED),
        worth=accuracy - LITTLE,
    )


EXPERIMENT = Experiment(
    "resistance",
    "What is left of the mark after every attack that is known?",
    _runs,
    _tables,
    _figures,
)
