"""Distillation: a new network learns the outputs, and no weight is copied."""

from __future__ import annotations

from typing import Any

import keras

from keras_wm.embedding.distiller import Distiller
from keras_wm.research.attacks.architecture import fresh_network
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.training import check_data, fit, gives_probabilities
from keras_wm.research.datasets import Examples
from keras_wm.research.hosts.wide_resnet import INITIAL_RATE


def _distilled(model: Any, data: Examples, epochs: float, seed: int) -> Any:
    check_data(model, data)
    student = fresh_network(model)
    distiller = Distiller(model, student, _distillation_loss(model, data))
    fit(distiller, data, None, INITIAL_RATE, round(epochs))
    return student


def _distillation_loss(model: Any, data: Examples) -> Any:
    """Returns the cross-entropy between the outputs of teacher and student.

    It is `None` for logits of several classes, where the distiller's default loss has
    the same gradient.
    """
    probabilities = gives_probabilities(model, data)
    if model.outputs[0].shape[-1] == 1:
        loss = keras.losses.binary_crossentropy if probabilities else _binary_loss
    elif probabilities:
        loss = keras.losses.CategoricalCrossentropy()
    else:
        return None
    # Keras calls the outputs logits, but does not transform them for these losses.
    return keras.distillation.LogitsDistillation(temperature=1.0, loss=loss)


def _binary_loss(teacher: Any, student: Any) -> Any:
    """Returns the cross-entropy between single logits."""
    target = keras.ops.sigmoid(teacher)
    return keras.losses.binary_crossentropy(target, student, from_logits=True)


DISTILLATION = Attack(
    "distillation",
    "Distils the network into a new one of the same architecture, without labels.",
    "epochs",
    (2, 8, 16, 32),
    _distilled,
    needs_data=True,
)
