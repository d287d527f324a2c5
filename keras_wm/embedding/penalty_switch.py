"""Leaving penalties out of a training in which the marks have steps of their own.

A penalty that is only multiplied by 0 would still cost time in every step, so it must
not be in the compiled steps at all. Other trainings of the model need it there. So a
model has two compiled training steps. Each is compiled once, however often `fit` is
called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_wm.embedding.regularizer import WatermarkRegularizer

# The attribute of a model with its two training steps: with the penalties, and without.
_STEPS = "_keras_wm_steps"


def switch_off(model: Any, regularizers: Sequence[WatermarkRegularizer]) -> None:
    """Leaves the penalties of some marks out of the next training steps of a model."""
    for regularizer in regularizers:
        regularizer.is_off = True
    present = model.train_function
    if present is None or not regularizers:
        return
    with_penalties, without = vars(model).get(_STEPS, (None, None))
    if present is without:  # A training was interrupted.
        return
    if present is with_penalties:
        model.train_function = without
    else:  # Compiling the model or attaching a mark has replaced the step since.
        model.make_train_function(force=True)
    # Keras would track an attribute that is set in the usual way.
    vars(model)[_STEPS] = present, model.train_function


def switch_on(model: Any, regularizers: Sequence[WatermarkRegularizer]) -> None:
    """Undoes `switch_off`."""
    for regularizer in regularizers:
        regularizer.is_off = False
    with_penalties, without = vars(model).get(_STEPS, (None, None))
    if without is not None and model.train_function is without:
        model.train_function = with_penalties
