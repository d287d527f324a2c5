"""The experiment `plain-host`: rearranged channels in a plain chain of convolutions.

The blocks of a residual network must keep the same order of channels, which helps to
align them. In a plain chain, each layer can be rearranged independently.
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
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import Mark
from keras_wm.research.experiments.settings import Settings
from keras_wm.research.experiments.studies.resistance import MAX_SEEDS, NOTHING
from keras_wm.research.experiments.tables import (
    COUNT,
    Cell,
    ResultTable,
    grouped,
    make_table,
    percent,
    worst_of,
)
from keras_wm.research.experiments.training import PICTURES
from keras_wm.research.hosts.plain_cnn import plain_cnn
from keras_wm.verification.verification import verify

LAYER = "conv3"
REARRANGING = ("equivalence", "obfuscation")
KINDS = {"plain": False, "with normalizations": True}
# At the papers' 0.1, a chain without normalization layers does not learn.
RATE = 0.02


def _runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MAX_SEEDS)):
        for kind in KINDS:
            rearranged = partial(_rearranged, settings=settings, kind=kind, seed=seed)
            yield Run({"host": kind, "seed": seed}, rearranged)


def _rearranged(
    store: NetworkStore, settings: Settings, kind: str, seed: int
) -> Measurements:
    """Marks a plain network, rearranges it in every way, and tests it for the mark."""
    pictures = store.pictures(PICTURES)
    mark = Mark("default", (LAYER,), settings.bits_of("default"), owner=seed)
    keras.utils.set_random_seed(seed)
    model = plain_cnn(pictures.x_train.shape[1:], pictures.classes, KINDS[kind])
    mark.attach(model)
    train(model, pictures, RATE, settings.training_epochs)
    before = {"attack": NOTHING, "strength": 0.0}
    points = [before | _measure(model, model, mark, pictures)]
    for attack in _attacks(settings):
        for strength in attack.strengths:
            attacked = attack(model, pictures, strength, seed)
            point = {"attack": attack.name, "strength": strength}
            points.append(point | _measure(attacked, model, mark, pictures))
            keras.utils.clear_session()
    return {"points": points}


def _attacks(settings: Settings) -> list[Attack]:
    """Returns the attacks that rearrange a network without changing its outputs.

    Only their greatest strength is tried, except for attacks that train the network
    afterwards: training can destroy a network after a large change of scale.
    """
    return [
        attack if attack.needs_data else attack.thinned(1)
        for family, attacks in families(LAYER).items()
        if family in REARRANGING
        and (settings.families is None or family in settings.families)
        for attack in attacks
    ]


def _measure(attacked: Any, owners: Any, mark: Mark, pictures: Any) -> Measurements:
    """Returns the test error, and the mark without and with alignment."""
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
    groups = grouped(points, host=KINDS, attack=None, strength=None)
    cells: dict[str, Cell] = COUNT | {
        "error, %": lambda rows: percent(rows, "test_error"),
        "log10 p, unaligned": lambda rows: worst_of(rows, "raw_log10_p", "z.0f"),
        "BER, aligned": lambda rows: worst_of(rows, "ber", ".2g"),
        "log10 p, aligned": lambda rows: worst_of(rows, "log10_p", "z.0f"),
    }
    notes = [
        f"The default mark in {LAYER!r} of a chain of four convolutions. aligned: with "
        "the owner's network as reference. The p-values are corrected for the number "
        "of tests; BER and p are the largest of all networks."
    ]
    title = "Channels rearranged in a plain network"
    return [make_table(title, groups, ["host", "attack", "strength"], cells, notes)]


EXPERIMENT = Experiment(
    "plain-host",
    "Is the mark found in a plain network whose channels were rearranged?",
    _runs,
    _tables,
)
