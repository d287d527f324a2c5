"""A plain network whose channels are rearranged: is the mark found by alignment?

A residual network ties the channels of its blocks together, and so helps to align
them. In a plain chain of convolutions each layer can be rearranged by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import keras

from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.catalogue import families
from keras_wm.research.attacks.training import train
from keras_wm.research.experiments.experiment import Experiment, Run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Figures, Row
from keras_wm.research.experiments.schemes import Mark
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
from keras_wm.research.experiments.training import PICTURES
from keras_wm.research.hosts.plain_cnn import plain_cnn
from keras_wm.verification.verification import verify

LAYER = "conv3"
REARRANGING = ("equivalence", "obfuscation")
KINDS = {"plain": False, "with normalizations": True}
# With the papers' 0.1, a chain without normalizations does not learn.
RATE = 0.02


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MOST_SEEDS)):
        for kind in KINDS:
            rearranged = partial(_rearranged, settings=settings, kind=kind, seed=seed)
            yield Run({"host": kind, "seed": seed}, rearranged)


def _rearranged(
    store: NetworkStore, settings: Settings, kind: str, seed: int
) -> Figures:
    """Marks a plain network, rearranges it in every way, and looks for the mark."""
    pictures = store.pictures(PICTURES)
    mark = Mark("default", (LAYER,), settings.bits_of("default"), owner=seed)
    keras.utils.set_random_seed(seed)
    shape, classes = pictures.x_train.shape[1:], pictures.classes
    model = plain_cnn(shape, classes, KINDS[kind])
    mark.attach(model)
    train(model, pictures, RATE, settings.training_epochs)
    found = _found(model, model, mark, pictures)
    points = [{"attack": NOTHING, "strength": 0.0} | found]
    for attack in _attacks(settings):
        for strength in attack.strengths:
            attacked = attack(model, pictures, strength, seed)
            found = _found(attacked, model, mark, pictures)
            points.append({"attack": attack.name, "strength": strength} | found)
            keras.utils.clear_session()
    return {"points": points}


def _attacks(settings: Settings) -> list[Attack]:
    """What leaves a network's answers as they are, as strong as it gets.

    Training after it may destroy a network whose scales were changed a lot, so that is
    tried with every strength.
    """
    return [
        attack if attack.needs_data else attack.thinned(1)
        for family, attacks in families(LAYER).items()
        if family in REARRANGING
        and (settings.families is None or family in settings.families)
        for attack in attacks
    ]


def _found(attacked: Any, owners: Any, mark: Mark, pictures: Any) -> Figures:
    key = mark.key()
    aligned = verify(attacked, key, reference=owners)
    return {
        "test_error": pictures.test_error(attacked),
        "raw_log10_p": verify(attacked, key).log10_p,
        "ber": aligned.ber if aligned.detection else None,
        "log10_p": aligned.log10_p,
    }


def _tables(rows: Sequence[Row]) -> list[ResultTable]:
    points = [{**row, **point} for row in rows for point in row["points"]]
    groups = [
        (
            [kind, attack, f"{strength:g}"],
            having(points, host=kind, attack=attack, strength=strength),
        )
        for kind in KINDS
        for attack in values(points, "attack")
        for strength in values(having(points, attack=attack), "strength")
    ]
    cells: dict[str, Cell] = {
        "n": lambda found: str(len(found)),
        "error": lambda found: percent(found, "test_error"),
        "log p as it is": lambda found: worst_of(found, "raw_log10_p", "z.0f"),
        "BER, aligned": lambda found: worst_of(found, "ber", ".2g"),
        "log p, aligned": lambda found: worst_of(found, "log10_p", "z.0f"),
    }
    notes = [
        f"The default mark in {LAYER!r} of a chain of four convolutions. Aligned with "
        "the owner's own network; the p-values are corrected for all that was tried, "
        "and the largest of several networks."
    ]
    title = "Channels rearranged in a plain network"
    return [table(title, groups, ["host", "attack", "strength"], cells, notes)]


EXPERIMENT = Experiment(
    "plain-host",
    "Is the mark found again in a plain network whose channels were rearranged?",
    _runs,
    _tables,
)
