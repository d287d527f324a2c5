"""Distillation: a fresh network learns the answers, and no weight is copied."""

from __future__ import annotations

from typing import Any

import keras

from keras_wm.attacks.architecture import fresh_network
from keras_wm.attacks.attack import Attack
from keras_wm.attacks.training import answers_probabilities, check_data, fit
from keras_wm.datasets import Pictures
from keras_wm.distiller import Distiller
from keras_wm.hosts.wide_resnet import INITIAL_RATE


def _distilled(model: Any, data: Pictures, epochs: float, seed: int) -> Any:
    check_data(model, data)
    student = fresh_network(model)
    losses = None
    if answers_probabilities(model, data):
        # Keras calls the answers logits, but takes them as they are for this loss.
        losses = keras.distillation.LogitsDistillation(
            temperature=1.0, loss=keras.losses.CategoricalCrossentropy()
        )
    distiller = Distiller(model, student, losses)
    fit(distiller, data, None, INITIAL_RATE, round(epochs))
    return student


DISTILLATION = Attack(
    "distillation",
    "Distils the network into a fresh one of the same architecture, without labels.",
    "epochs",
    (2, 8, 16, 32),
    _distilled,
    needs_data=True,
)
