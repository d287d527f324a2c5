"""Regularization: shrinking all weights until those of the mark are gone."""

from __future__ import annotations

from typing import Any

import keras

from keras_wm.research.attacks.attack import Attack, kernel_variables
from keras_wm.research.attacks.training import RATE, train
from keras_wm.research.datasets import Examples


def _regularized(model: Any, data: Examples, factor: float, seed: int) -> Any:
    """Trains with a strong L2 penalty, and then with the network's own penalties."""
    variables = kernel_variables(model)
    original = [variable.regularizer for variable in variables]
    for variable in variables:
        variable.regularizer = keras.regularizers.L2(factor)
    train(model, data, RATE)
    for variable, regularizer in zip(variables, original, strict=True):
        variable.regularizer = regularizer
    train(model, data, RATE)
    return model


# From the Watermark Robustness Toolbox (Lukas et al. 2022), whose factor is 0.1.
REGULARIZATION = Attack(
    "regularization",
    "Trains with a strong L2 penalty, then fine-tunes without it.",
    "factor of the penalty",
    (0.001, 0.005, 0.01, 0.05, 0.1),
    _regularized,
    needs_data=True,
)
