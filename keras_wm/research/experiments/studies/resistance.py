"""The experiment `resistance`: the papers' mark and the default under every attack.

An attack counts only if the network is useful afterwards. So the remaining mark is
reported for a limited increase of the test error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log10, nan
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keras_wm import plots
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.catalogue import families, select_families
from keras_wm.research.attacks.overwriting import overwriting
from keras_wm.research.datasets import Pictures
from keras_wm.research.evaluation.evaluator import TOLERANCE
from keras_wm.research.evaluation.outcomes import Subject, outcomes
from keras_wm.research.experiments.experiment import (
    Experiment,
    Run,
    network_run,
    trained_run,
)
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.tables import (
    COST,
    COUNT,
    Cell,
    Groups,
    ResultTable,
    grouped,
    having,
    make_table,
    values,
    worst_of,
)
from keras_wm.research.experiments.training import from_scratch, mark_to_test
from keras_wm.verification.standing import MARKED

# Each network is attacked by hundreds of trainings.
MAX_SEEDS = 3
# The number of strengths of an attack that trains: the weakest, the strongest and one
# between.
TRAINED_STRENGTHS = 3
# The largest increase of the test error after which a network counts as useful, as a
# share: the usual one, and a larger one for attacks that do not train, such as noise.
SMALL_COST, LARGE_COST = TOLERANCE, 0.05
NOTHING = "none"
# Separates the lines of two networks in a plot.
_GAP = (nan, nan)
_RECORDED = ("strength", "test_error", "ber", "log10_p", "aligned", "refused")


def attacks_on(
    layer: str, names: Sequence[str] | None = None
) -> dict[str, tuple[Attack, ...]]:
    """Returns the attacks to try, by family: all but collusion, which needs copies.

    The attacker knows the marked layer, except in `"overwriting every layer"`. `names`
    selects families; `None` is all. An unknown name raises `ValueError`.
    """
    everywhere = (overwriting("mean"), overwriting("keyed"))
    catalogue = families(layer) | {"overwriting every layer": everywhere}
    return {
        family: tuple(
            attack.thinned(TRAINED_STRENGTHS) if attack.needs_data else attack
            for attack in attacks
        )
        for family, attacks in select_families(catalogue, names).items()
    }


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MAX_SEEDS)):
        for scheme in settings.main_marks:
            host = from_scratch(settings, scheme, seed)
            mark = mark_to_test(settings, scheme, seed)
            labels = {"scheme": scheme, "seed": seed}
            yield trained_run(labels | {"attack": NOTHING}, host, mark)
            (layer,) = mark.layers
            for family, attacks in attacks_on(layer, settings.families).items():
                for attack in attacks:
                    which = labels | {"family": family, "attack": attack.name}
                    options = {"mark": mark, "attacks": {family: [attack]}}
                    yield network_run(which, host, _attacked, **options)


def _attacked(
    model: Any, pictures: Pictures, mark: Mark, attacks: dict[str, list[Attack]]
) -> Measurements:
    """Returns the test error and the mark after one attack, for each strength."""
    subject = Subject(model, mark.key(), mark.layers[0], owners=model)
    return {
        "points": [
            {name: getattr(outcome, name) for name in _RECORDED}
            for outcome in outcomes(subject, attacks, pictures, 1)
        ]
    }


def _points(rows: Sequence[Row]) -> list[Row]:
    """Returns the outcome of each attack and strength, with its cost in test error."""
    before = {
        (row["scheme"], row["seed"]): row["test_error"]
        for row in having(rows, attack=NOTHING)
    }
    return [
        {**row, **point, "cost": point["test_error"] - before[network]}
        for row in rows
        # An unfinished study can lack the network before the attack.
        if (network := (row["scheme"], row["seed"])) in before
        for point in row.get("points", ())
        if not point["refused"]
    ]


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    attacked = _points(rows)
    schemes = values(rows, "scheme")
    before = grouped(having(rows, attack=NOTHING), scheme=schemes)
    groups = _by_attack(attacked)
    cells: dict[str, Cell] = {}
    for scheme in schemes:
        cells |= _cells(scheme)
    notes = [
        f"Attacks that train are tried with {TRAINED_STRENGTHS} strengths. cost: the "
        "smallest increase of the test error, in percentage points. BER and log10 p: "
        "the largest over networks and strengths with an increase of at most 2 points, "
        "or 5 points in the columns that say so; a dash if there is none. p is "
        "corrected for the number of tests. An asterisk means that the mark was found "
        "by alignment with the owner's network, which is tried if bits are lost."
    ]
    return [
        make_table("Before any attack", before, ["mark"], COUNT | COST),
        make_table("The mark after attacks", groups, ["attack"], cells, notes),
        _removed(attacked, schemes),
    ]


def _by_attack(points: Sequence[Row]) -> Groups:
    """Groups points by attack, with the attack's name as the text of its row.

    An attack of two families, which differ in the layers, is listed for each family.
    """
    by_attack: dict[str, Groups] = {}
    for (family, attack), rows in grouped(points, family=None, attack=None):
        of_attack = by_attack.setdefault(attack, [])
        of_attack.append(([f"{attack} ({family})" if of_attack else attack], rows))
    return [group for of_attack in by_attack.values() for group in of_attack]


def _cells(scheme: str) -> dict[str, Cell]:
    """Returns the columns of a mark."""

    return {
        f"{scheme} cost": lambda rows: _least_cost(having(rows, scheme=scheme)),
        f"{scheme} BER": lambda rows: worst_of(_useful(rows, scheme), "ber", ".2g"),
        f"{scheme} log10 p": lambda rows: _worst_p(_useful(rows, scheme)),
        f"{scheme} log10 p, 5 points": lambda rows: _worst_p(
            _useful(rows, scheme, LARGE_COST)
        ),
    }


def _useful(rows: Sequence[Row], scheme: str, limit: float = SMALL_COST) -> list[Row]:
    """Returns the rows of networks that are still useful after the attack."""
    return [row for row in having(rows, scheme=scheme) if row["cost"] <= limit]


def _least_cost(rows: Sequence[Row]) -> str:
    return f"{100 * min(row['cost'] for row in rows):+.1f}" if rows else "-"


def _worst_p(rows: Sequence[Row]) -> str:
    if not rows:
        return "-"
    worst = max(rows, key=lambda row: row["log10_p"])
    return f"{worst['log10_p']:z.0f}{'*' if worst['aligned'] else ''}"


def _removed(attacked: Sequence[Row], schemes: Sequence[str]) -> ResultTable:
    """Returns the table of attacks that remove a mark, each with its smallest cost."""
    removed = [row for row in attacked if row["log10_p"] >= log10(MARKED)]
    groups = [
        ([scheme, *attack], rows)
        for scheme in schemes
        for attack, rows in _by_attack(_useful(removed, scheme))
    ]

    def cheapest(rows: Sequence[Row]) -> Row:
        return min(rows, key=lambda row: row["cost"])

    cells: dict[str, Cell] = {
        "strength": lambda rows: f"{cheapest(rows)['strength']:g}",
        "cost": _least_cost,
        "log10 p": lambda rows: f"{cheapest(rows)['log10_p']:z.1f}",
        "networks": lambda rows: str(len(values(rows, "seed"))),
    }
    notes = [
        f"Attacks after which the mark is not found (p > {MARKED:g}) and the error is "
        "at most 2 points higher. strength, cost and log10 p: those with the smallest "
        "cost. networks: number of networks in which the attack succeeds."
    ]
    title = "Attacks that remove a mark"
    return make_table(title, groups, ["mark", "attack"], cells, notes)


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
    """Returns a plot of accuracy against evidence, with one line for each network."""
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for (family, attack, _), rows in grouped(
        attacked, family=None, attack=None, seed=None
    ):
        line = points.setdefault(family, {}).setdefault(attack, [])
        line += [*((-row["log10_p"], 1 - row["test_error"]) for row in rows), _GAP]
    accuracy = 1 - float(np.mean([row["test_error"] for row in before]))
    evidence = -float(np.mean([row["log10_p"] for row in before]))
    return plots.plot_evidence(
        points,
        start=(evidence, accuracy),
        threshold=-log10(MARKED),
        useful_accuracy=accuracy - SMALL_COST,
    )


EXPERIMENT = Experiment(
    "resistance",
    "Does the mark survive every known attack that leaves the network useful?",
    _runs,
    _tables,
    _figures,
)
