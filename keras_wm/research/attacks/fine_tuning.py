"""Fine-tuning: training a network further, so that its mark wears off.

Adi et al. (USENIX Security 2018) name the four kinds: the last layer or all layers are
trained, and the last layer is kept or drawn anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keras_wm.research.attacks.architecture import head_of, reinitialize
from keras_wm.research.attacks.attack import Attack, Change
from keras_wm.research.attacks.kernels import kernel_variables
from keras_wm.research.attacks.pruning import hold_zeros
from keras_wm.research.attacks.training import RATE, train
from keras_wm.research.datasets import Examples


def then_fine_tuned(attack: Attack, zeros_stay: bool = False) -> Attack:
    """An attack, and fine-tuning of all layers after it, which mends what it broke.

    Args:
        attack: What is done first, as strong as it is asked for.
        zeros_stay: Whether weights that are zero then are not trained.

    Returns:
        An `Attack` that needs data.
    """

    def change(model: Any, data: Examples, strength: float, seed: int) -> Any:
        model = attack.change(model, data, strength, seed)
        if zeros_stay:
            for variable in kernel_variables(model):
                hold_zeros(variable)
        train(model, data, RATE)
        return model

    return replace(
        attack,
        name=f"{attack.name}-fine-tuned",
        title=f"{attack.title.removesuffix('.')}, and fine-tunes all layers.",
        change=change,
        needs_data=True,
    )


def _tuned(last: bool, anew: bool) -> Change:
    """Fine-tuning of the last layer or of all; the last may be drawn anew before."""

    def change(model: Any, data: Examples, rate: float, seed: int) -> Any:
        heads = [head_of(model)] if last or anew else []
        if anew:
            reinitialize(model, heads)
        train(model, data, rate, layers=heads if last else None)
        return model

    return change


def _attack(name: str, title: str, last: bool = False, anew: bool = False) -> Attack:
    rates = (0.001, 0.005, 0.01, 0.05, 0.1)
    change = _tuned(last, anew)
    return Attack(name, title, "learning rate", rates, change, needs_data=True)


FTLL = _attack("ftll", "Fine-tunes the last layer.", last=True)
FTAL = _attack("ftal", "Fine-tunes all layers.")
RTLL = _attack("rtll", "Trains a new last layer alone.", last=True, anew=True)
RTAL = _attack("rtal", "Fine-tunes all layers with a new last one.", anew=True)
