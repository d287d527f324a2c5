"""Trials whose networks were trained with Keras on scikit-learn's digits.

Every marked network and its unmarked sibling begin with the same weights. All networks
are trained in one model, which is compiled once. They share nothing but the batches,
and each adds noise of its own to the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wm.embedding.attachment import attach
from keras_wm.research.alignment_trials.networks import (
    TESTED,
    TESTED_KERNEL,
    Architecture,
    Weights,
)
from keras_wm.research.alignment_trials.trials import (
    BESIDE,
    REARRANGED,
    SIBLING,
    UNRELATED,
    Trial,
)
from keras_wm.research.attacks.architecture import arrays_of
from keras_wm.research.datasets import Pictures, load_pictures
from keras_wm.scheme.key import WatermarkKey

HIDDEN = 64
_NOISE = 0.3
_RATE, _MOMENTUM, _BATCH, _EPOCHS = 0.05, 0.9, 32, 8
# So many keys are trained in one model. Tracing takes a few seconds for each.
_KEYS_PER_MODEL = 8


def trained_trials(
    keys: Sequence[WatermarkKey], slots: dict[str, int], seed: int
) -> list[Trial]:
    """Trains the networks of a trial for each key.

    Args:
        keys: The keys.
        slots: Slot of the mark in each marked layer of a chain of four dense layers,
            `"first"`, `"second"`, `"third"` and `"last"`. `"second"` is tested.
        seed: Random seed of all networks.
    """
    keras.utils.set_random_seed(seed)
    pictures = load_pictures("digits")
    trials = []
    for start in range(0, len(keys), _KEYS_PER_MODEL):
        trials += _trained(keys[start : start + _KEYS_PER_MODEL], slots, pictures)
        keras.backend.clear_session()
    return trials


def _trained(
    keys: Sequence[WatermarkKey], slots: dict[str, int], pictures: Pictures
) -> list[Trial]:
    """Trains the networks of several keys, and one unrelated network, together."""
    size, classes = pictures.x_train[0].size, pictures.classes
    unrelated, *networks = (_chain(size, classes) for _ in range(1 + 2 * len(keys)))
    marked, siblings = networks[::2], networks[1::2]
    architecture = Architecture.of(unrelated, slots)
    for network, sibling in zip(marked, siblings, strict=True):
        sibling.set_weights(network.get_weights())
    before = list(map(_weights_of, marked))
    whole = _side_by_side([unrelated, *networks], size)
    for network, key in zip(marked, keys, strict=True):
        for layer, slot in slots.items():
            attach(whole, network.get_layer(layer), key, slot=slot)
    whole.fit(
        pictures.x_train.reshape(-1, size),
        np.repeat(pictures.y_train[:, None], 1 + len(networks), axis=1),
        batch_size=_BATCH,
        epochs=_EPOCHS,
        verbose=0,
    )
    trials: list[Trial] = []
    for key, checkpoint, *pair in zip(keys, before, marked, siblings, strict=True):
        reference, sibling = map(_weights_of, pair)
        suspects = {
            UNRELATED: _weights_of(unrelated),
            SIBLING: sibling,
            BESIDE: {**reference, TESTED_KERNEL: sibling[TESTED_KERNEL]},
        }
        rearranged = {
            name: architecture.model(architecture.rearranged(weights, len(trials)))
            for name, weights in {**suspects, REARRANGED: reference}.items()
        }
        copies = {REARRANGED: rearranged.pop(REARRANGED)}
        before_mark = architecture.model(checkpoint)
        after = architecture.model(reference)
        trials.append(Trial(key, before_mark, after, rearranged, copies))
    return trials


def _chain(size: int, classes: int) -> Any:
    """Returns a chain of four dense layers with new weights."""
    hidden = [
        keras.layers.Dense(HIDDEN, "relu", name=name)
        for name in ("first", TESTED, "third")
    ]
    head = keras.layers.Dense(classes, name="last")
    return keras.Sequential([keras.Input((size,)), *hidden, head])


def _side_by_side(networks: Sequence[Any], size: int) -> Any:
    """Returns a compiled model that gives the outputs of several networks."""
    inputs = keras.Input((size,))
    outputs = [
        network(keras.layers.GaussianNoise(_NOISE)(inputs)) for network in networks
    ]
    whole = keras.Model(inputs, ops.stack(outputs, axis=1))
    mean_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    whole.compile(
        keras.optimizers.SGD(_RATE, _MOMENTUM),
        # Each network has the loss that it would have by itself.
        lambda labels, logits: len(networks) * mean_loss(labels, logits),
        jit_compile=False,
    )
    return whole


def _weights_of(network: Any) -> Weights:
    return {
        name: array.astype(np.float64) for name, array in arrays_of(network).items()
    }
