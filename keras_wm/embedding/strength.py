r"""The strength of a mark that follows a schedule, whatever the optimizer is.

A fixed strength embeds a mark within a few steps in one training and never in another:
the speed depends on the optimizer, its learning rate, the gradients of the task and the
scale of the weights. So the speed itself is controlled. The shortfall of a mark is the
mean distance of its scores from the margin m, relative to m:

\[f = \frac{1}{T} \sum_j \max(0, m - z_j) / m\]

The strength starts at the default. It is raised while f falls too slowly to reach
`GOAL` at the deadline, and lowered to the default again when the mark is embedded.

It is never weaker. Adam divides a weak gradient of the mark by the gradients of the
task, so mostly weights that the task does not use would move. Embedding a mark so
slowly makes the distribution of the weights wider and heavier in its tails.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import log
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wm.embedding.marked_layers import (
    MarkedLayer,
    find_marked_layers,
    rebuild_steps,
    sublayers,
)
from keras_wm.embedding.regularizer import DEFAULT_STRENGTH, WatermarkRegularizer
from keras_wm.utils.arrays import Floats

# The shortfall of a mark that is embedded: its mean score is 95 % of the margin.
GOAL = 0.05
# Below this shortfall, a mark is only held: large kernels need the loss in some of the
# steps only.
PAUSES_BELOW = 0.1
# A mark is to be embedded within this share of the planned steps,
DEADLINE_SHARE = 0.5
# at the latest after this number of steps, because training may be stopped early, and
# after this number if the length of an epoch is not known before its end.
LATEST_STEP = 1000
UNKNOWN_LENGTH = 150
# Steps between two adjustments: at least the first number, to see the effect of the
# last one, and later this share of the steps so far, to average over the task's noise.
SHORTEST_WAIT = 4
WAIT_SHARE = 0.15
WEAKEST, STRONGEST = DEFAULT_STRENGTH["margin"], 1.0
LARGEST_FACTOR = 4.0
# Up to this strength, it is raised as needed. Beyond, only if the shortfall then falls
# faster by this power of the factor. With SGD, the speed is proportional to the
# strength. The steps of Lion and Adam have a fixed size, and at their limit more
# strength would only take them away from the task.
UNQUESTIONED = 1e-3
USEFUL_POWER = 0.5


class StrengthHolder(keras.layers.Layer):
    """Holds the strength of a mark as a variable that compiled steps read.

    It is put among the sublayers of the marked layer, because JAX's trainer passes only
    the variables of a model's layers to its compiled steps. Its variables are not
    weights of the model: they are neither saved, nor counted, nor returned by
    `get_weights`. But `model.export` would write them, so the holder is there only
    while `fit` trains.

    Attributes:
        strength: Variable of the strength.
        pauses: Variable that is 1 if a large kernel gets the loss in some of the steps
            only, and 0 while it is being embedded.
        value: The strength as a float.
    """

    def __init__(self) -> None:
        super().__init__(name="watermark_strength", dtype="float32")
        self.strength = self._variable(WEAKEST)
        self.pauses = self._variable(0.0)
        self.value, self.built = WEAKEST, True

    def set(self, strength: float, pauses: bool) -> None:
        """Sets what the compiled steps read."""
        self.value = strength
        self.strength.assign(strength)
        self.pauses.assign(float(pauses))

    def _variable(self, value: float) -> Any:
        initializer = keras.initializers.Constant(value)
        return self.add_weight((), initializer, trainable=False, autocast=False)

    @property
    def weights(self) -> list[Any]:
        """The weights of the model in this layer: none."""
        return []


class StrengthControl:
    """Keeps the marks of a model on schedule during one call of `fit`.

    Only marks whose strength the user left to the default are adjusted.

    Args:
        model: The model that is trained, with all its weights.
    """

    def __init__(self, model: Any) -> None:
        marks: dict[int, list[MarkedLayer]] = {}
        for marked in find_marked_layers(model):
            if marked.regularizer.adapts and not marked.problem:
                marks.setdefault(id(marked.regularizer), []).append(marked)
        self._schedules = [_Schedule(layers) for layers in marks.values()]
        self._next_step = 0
        is_new = [_hold_strength(model, layers[0]) for layers in marks.values()]
        if any(is_new):
            rebuild_steps(model)

    def is_due(self, step: int) -> bool:
        """Returns whether the strengths are to be adjusted after a step."""
        return step >= self._next_step and bool(self._schedules)

    def adjust(self, step: int, planned: int | None) -> None:
        """Adjusts the strengths to the progress of the marks.

        Args:
            step: Number of steps so far.
            planned: Number of steps of the whole training, or `None` if unknown.
        """
        self._next_step = step + max(SHORTEST_WAIT, round(WAIT_SHARE * step))
        for schedule in self._schedules:
            schedule.adjust(step, deadline_of(planned))


def deadline_of(planned: int | None) -> float:
    """Returns the step at which the marks of a training are to be embedded.

    Args:
        planned: Number of steps of the whole training, or `None` if unknown.
    """
    deadline = UNKNOWN_LENGTH if planned is None else DEADLINE_SHARE * planned
    return min(deadline, LATEST_STEP)


class _Schedule:
    """The progress of the marks that one regularizer embeds."""

    def __init__(self, marks: Sequence[MarkedLayer]) -> None:
        self._marks = marks
        self._regularizer: WatermarkRegularizer = marks[0].regularizer
        self._step, self._scores = 0, self._measure()
        # At the last adjustment: the speed, and the change of the strength.
        self._speed, self._factor = 0.0, 1.0
        self._strongest = STRONGEST

    def adjust(self, step: int, deadline: float) -> None:
        """Adjusts the strength, given the number of steps so far."""
        scores, steps = self._measure(), step - self._step
        # Weights that have not changed wait for the end of an accumulation.
        if steps <= 0 or np.array_equal(scores, self._scores):
            return
        strength, remaining = self._regularizer.strength, shortfall(scores)
        if remaining > GOAL:
            speed = max(log(shortfall(self._scores) / remaining) / steps, 0.0)
            needed = log(remaining / GOAL) / max(deadline - step, steps)
            strength = self._changed(strength, speed, needed, step < deadline)
        elif remaining < GOAL / 2:
            strength = max(strength / 2, WEAKEST)
        self._regularizer.schedule.set(strength, pauses=remaining <= PAUSES_BELOW)
        self._step, self._scores = step, scores

    def _changed(
        self, before: float, speed: float, needed: float, can_weaken: bool
    ) -> float:
        """Returns the strength that brings the speed to the needed one."""
        strength = before
        useful_speed = self._factor**USEFUL_POWER * self._speed
        was_useful = speed >= min(useful_speed, needed)
        if strength > UNQUESTIONED and self._factor > 1 and not was_useful:
            # Half way back.
            strength /= self._factor**0.5
            self._strongest = strength
        # A speed of 0 asks for the largest factor.
        factor = needed / max(speed, needed / LARGEST_FACTOR)
        if factor < 1:
            factor = max(factor, 1 / LARGEST_FACTOR) if can_weaken else 1.0
        strength = min(max(strength * factor, WEAKEST), self._strongest)
        self._speed, self._factor = speed, strength / before
        return strength

    def _measure(self) -> Floats:
        """Returns the scores of all marks relative to their margins, a row each."""
        rows = []
        for marked in self._marks:
            z, margin = marked.regularizer.scores(marked.kernel)
            rows.append(ops.convert_to_numpy(z) / margin)
        return np.stack(rows).astype(float)


def shortfall(scores: Floats) -> float:
    """Returns the largest shortfall of some marks; a tiny number in place of 0.

    Args:
        scores: Scores relative to the margin, shape `(marks, T)`.
    """
    return max(float(np.maximum(1 - scores, 0).mean(axis=1).max()), 1e-9)


def _hold_strength(model: Any, marked: MarkedLayer) -> bool:
    """Makes the strength of a mark a variable; returns whether it was none before."""
    is_new = marked.regularizer.schedule is None
    if is_new:
        # TensorFlow needs the variables of a distributed model in its scope.
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy else nullcontext():
            marked.regularizer.schedule = StrengthHolder()
    # Steps that were compiled in an earlier training read the same holder.
    holder = marked.regularizer.schedule
    holder.set(WEAKEST, pauses=False)
    if holder not in marked.layer._layers:
        marked.layer._layers.append(holder)
    return is_new


def release_strength(model: Any) -> None:
    """Removes the variables of strengths from the layers of a model."""
    for layer in sublayers(model):
        if any(isinstance(inside, StrengthHolder) for inside in layer._layers):
            layer._layers[:] = [
                inside
                for inside in layer._layers
                if not isinstance(inside, StrengthHolder)
            ]
