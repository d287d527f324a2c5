"""The experiments `plain-host` and `several-layers`: attacks that change layers.

The blocks of a residual network must keep the same order of channels, which helps to
align them. In a plain chain, each layer can be rearranged independently.

A mark in a single layer does not survive an attacker who re-initialises that layer and
trains it again. Layers that the attacker does not know to be marked are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, combinations
from typing import Any

import keras

from keras_wm.research.attacks.adaptive import reset
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.catalogue import families
from keras_wm.research.attacks.training import train
from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments.experiment import Experiment, Run, network_run
from keras_wm.research.experiments.network_store import NetworkStore
from keras_wm.research.experiments.run_records import Measurements, Row
from keras_wm.research.experiments.schemes import GROUPS, Mark, group_layer
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
from keras_wm.research.experiments.training import PICTURES, Training, from_scratch
from keras_wm.research.hosts.plain_cnn import plain_cnn
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.verification import verify

PLAIN_LAYER = "conv3"
REARRANGING = ("equivalence", "obfuscation")
KINDS = {"plain": False, "with normalizations": True}
# At the papers' 0.1, a chain without normalization layers does not learn.
PLAIN_RATE = 0.02
# The several marked layers of a residual network.
LAYERS = tuple(map(group_layer, GROUPS))
RESET_RATE = 0.05


def _plain_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MAX_SEEDS)):
        for kind in KINDS:
            rearranged = partial(_rearranged, settings=settings, kind=kind, seed=seed)
            yield Run({"host": kind, "seed": seed}, rearranged)


def _rearranged(
    store: NetworkStore, settings: Settings, kind: str, seed: int
) -> Measurements:
    """Marks a plain network, rearranges it in every way, and tests it for the mark."""
    pictures = store.pictures(PICTURES)
    mark = Mark("default", (PLAIN_LAYER,), settings.bits_of("default"), owner=seed)
    keras.utils.set_random_seed(seed)
    model = plain_cnn(pictures.x_train.shape[1:], pictures.classes, KINDS[kind])
    mark.attach(model)
    train(model, pictures, PLAIN_RATE, settings.training_epochs)
    key = mark.key()
    before = {"attack": NOTHING, "strength": 0.0}
    points = [before | _measure(model, model, key, pictures)]
    for attack in _attacks(settings):
        for strength in attack.strengths:
            attacked = attack(model, pictures, strength, seed)
            point = {"attack": attack.name, "strength": strength}
            points.append(point | _measure(attacked, model, key, pictures))
            keras.utils.clear_session()
    return {"points": points}


def _attacks(settings: Settings) -> list[Attack]:
    """Returns the attacks that rearrange a network without changing its outputs.

    Only their greatest strength is tried, except for attacks that train the network
    afterwards: training can destroy a network after a large change of scale.
    """
    catalogue = families(PLAIN_LAYER)
    return [
        attack if attack.needs_data else attack.thinned(1)
        for family in REARRANGING
        if settings.families is None or family in settings.families
        for attack in catalogue[family]
    ]


def _measure(
    attacked: Any, owners: Any, key: WatermarkKey, pictures: Pictures
) -> Measurements:
    """Returns the test error, and the mark without and with alignment."""
    aligned = verify(attacked, key, reference=owners).most_significant
    return {
        "test_error": pictures.test_error(attacked),
        "raw_log10_p": verify(attacked, key).log10_p,
        "ber": aligned.detection.ber if aligned.detection else None,
        "log10_p": aligned.log10_p_corrected,
    }


def _plain_tables(rows: Sequence[Row]) -> list[ResultTable]:
    points = [{**row, **point} for row in rows for point in row["points"]]
    groups = grouped(points, host=KINDS, attack=None, strength=None)
    cells: dict[str, Cell] = COUNT | {
        "error, %": lambda rows: percent(rows, "test_error"),
        "log10 p, unaligned": lambda rows: worst_of(rows, "raw_log10_p", "z.0f"),
        "BER, aligned": lambda rows: worst_of(rows, "ber", ".2g"),
        "log10 p, aligned": lambda rows: worst_of(rows, "log10_p", "z.0f"),
    }
    notes = [
        f"The default mark in {PLAIN_LAYER!r} of a chain of four convolutions. "
        "aligned: with the owner's network as reference. The p-values are corrected "
        "for the number of tests; BER and p are the largest of all networks."
    ]
    title = "Channels rearranged in a plain network"
    return [make_table(title, groups, ["host", "attack", "strength"], cells, notes)]


def _several_runs(settings: Settings) -> Iterator[Run]:
    for seed in range(min(settings.seeds, MAX_SEEDS)):
        host = from_scratch(settings, "default", seed, layers=LAYERS)
        counts = range(len(LAYERS) + 1)
        for layers in chain.from_iterable(combinations(LAYERS, n) for n in counts):
            labels = {"seed": seed, "drawn": ", ".join(layers) or NOTHING}
            yield network_run(labels, host, _reinitialised, host=host, layers=layers)


def _reinitialised(
    model: Any, pictures: Pictures, host: Training, layers: tuple[str, ...]
) -> Measurements:
    """Re-initialises layers of a network, trains them, and tests for the mark."""
    if layers:
        model = reset(layers)(model, pictures, RESET_RATE, host.seed)
    key = host.own_mark.key()
    slots = len(LAYERS)
    jointly, _ = verify(model, key, LAYERS, slots=slots).attempts
    return {
        "test_error": pictures.test_error(model),
        "ber": jointly.detection.ber if jointly.detection else None,
        "log10_p": jointly.log10_p_corrected,
        "best_log10_p": verify(model, key, slots=slots).log10_p,
    }


def _several_tables(rows: Sequence[Row]) -> list[ResultTable]:
    cells: dict[str, Cell] = COUNT | {
        "error, %": lambda rows: percent(rows, "test_error"),
        "BER, joint": lambda rows: worst_of(rows, "ber", ".2g"),
        "log10 p, joint": lambda rows: worst_of(rows, "log10_p", "z.0f"),
        "log10 p, best layer": lambda rows: worst_of(rows, "best_log10_p", "z.0f"),
    }
    notes = [
        f"The default mark of one key in {', '.join(LAYERS)}. joint: one p-value from "
        "the added scores of all three layers. best layer: the smallest p-value of any "
        "layer, corrected for the number of layers tested. The attacker re-initialises "
        f"layers and trains only them, at a learning rate of {RESET_RATE:g}."
    ]
    title = "One key in several layers, some of them re-initialised"
    groups = grouped(rows, drawn=None)
    return [make_table(title, groups, ["re-initialised"], cells, notes)]


PLAIN_HOST = Experiment(
    "plain-host",
    "Is the mark found in a plain network whose channels were rearranged?",
    _plain_runs,
    _plain_tables,
)
SEVERAL_LAYERS = Experiment(
    "several-layers",
    "Does a mark in several layers survive if some are re-initialised?",
    _several_runs,
    _several_tables,
)
