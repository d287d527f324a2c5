"""Fine-tuning: training the network further, so that its mark wears off.

Adi et al. (USENIX Security 2018) name four kinds: either the last layer or all layers
are trained, and the last layer is either kept or re-initialised. Regularization trains
all layers with a strong penalty first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras

from keras_wm.research.attacks.architecture import head_of, reinitialize
from keras_wm.research.attacks.attack import Attack, kernel_variables
from keras_wm.research.attacks.pruning import hold_zeros
from keras_wm.research.attacks.training import RATE, train
from keras_wm.research.datasets import Examples


def with_fine_tuning(attack: Attack, keep_zeros: bool = False) -> Attack:
    """Returns an attack followed by fine-tuning of all layers, to repair the network.

    Args:
        attack: The first attack. Its strengths are those of the combined attack.
        keep_zeros: Whether weights that are zero after the first attack stay zero.
    """

    def change(model: Any, data: Examples, strength: float, seed: int) -> Any:
        model = attack.change(model, data, strength, seed)
        if keep_zeros:
            for variable in kernel_variables(model):
                hold_zeros(variable)
        train(model, data, RATE)
        return model

    return replace(
        attack,
        name=f"{attack.name}-fine-tuned",
        title=f"{attack.title.removesuffix('.')}, then fine-tunes all layers.",
        change=change,
        needs_data=True,
    )


def _attack(
    name: str, title: str, last: bool = False, new_head: bool = False
) -> Attack:
    """Returns an attack that trains the last layer or all, with a new head or not."""

    def change(model: Any, data: Examples, rate: float, seed: int) -> Any:
        heads = [head_of(model)] if last or new_head else []
        if new_head:
            reinitialize(model, heads)
        train(model, data, rate, layers=heads if last else None)
        return model

    rates = (0.001, 0.005, 0.01, 0.05, 0.1)
    return Attack(name, title, "learning rate", rates, change, needs_data=True)


FTLL = _attack("ftll", "Fine-tunes the last layer.", last=True)
FTAL = _attack("ftal", "Fine-tunes all layers.")
RTLL = _attack(
    "rtll",
    "Re-initialises the last layer and trains only that layer.",
    last=True,
    new_head=True,
)
RTAL = _attack(
    "rtal", "Re-initialises the last layer and fine-tunes all layers.", new_head=True
)
KINDS = (FTLL, FTAL, RTLL, RTAL)


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
