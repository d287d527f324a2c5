r"""Embedding marks between the steps of the optimizer, whatever the optimizer is.

As a penalty in the training loss, a mark is embedded within a few steps in one training
and never in another: its speed depends on the optimizer, its learning rate, the
gradients of the task and the scale of the weights. Steps of its own, see
`keras_wm.embedding.loss.decoupled_step`, have the speed that they are given. It follows
the shortfall of the mark, the mean distance of its scores from the margin m, relative
to m:

\[f = \frac{1}{T} \sum_j \max(0, m - z_j) / m\]
"""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import numpy as np
from keras import ops

from keras_wm.embedding.lora import lora_factors
from keras_wm.embedding.loss.decoupled_step import stepped, stepped_factors
from keras_wm.embedding.marked_layers import MarkedLayer, find_marked_layers
from keras_wm.embedding.penalty_switch import switch_off, switch_on
from keras_wm.embedding.regularizer import WatermarkRegularizer, compute_dtype

# The shortfall of a mark that is embedded: its mean score is 95 % of the margin. The
# factors of LoRA have little room, so a mark in them is embedded, and left, at 80 %.
_GOAL, _GOAL_OF_FACTORS = 0.05, 0.2
# The bits are not quite orthogonal, in few ranks far from it. One long step would miss
# the goal, so it is made in parts of at most this share, of the second one for factors.
_LONGEST_PART, _LONGEST_PART_OF_FACTORS = 0.5, 0.125
# A mark is to be embedded within this share of the planned steps,
_DEADLINE_SHARE = 0.5
# at the latest after this number of steps, because training may be stopped early, and
# after this number if the length of an epoch is not known before its end.
_LATEST_STEP = 1000
_UNKNOWN_LENGTH = 150
# A step of the mark costs as much as several steps of a small network. So it waits for
# a step of the optimizer per this number of weights, within limits.
_WEIGHTS_PER_STEP, _SHORTEST_WAIT, _LONGEST_WAIT = 2**13, 16, 64
# The share of its way back to the margin that a bit of an embedded mark covers.
_HOLDING_SHARE = 0.25


class MarkSteps:
    """Moves the marked kernels of a model during one call of `fit`.

    Marks with a given strength are left to the penalty.

    Args:
        model: The model that is trained, with all its weights.
    """

    def __init__(self, model: Any) -> None:
        self._marks = [
            marked
            for marked in find_marked_layers(model)
            if marked.regularizer.decoupled and not marked.problem
        ]
        weights = sum(prod(marked.variable.shape) for marked in self._marks)
        wait = -(-weights // _WEIGHTS_PER_STEP)
        self._wait = min(max(wait, _SHORTEST_WAIT), _LONGEST_WAIT)
        self._last_step = 0
        self._model = model
        switch_off(model, self._regularizers)

    def finish(self) -> None:
        """Leaves the model as it was found."""
        switch_on(self._model, self._regularizers)

    @property
    def _regularizers(self) -> list[WatermarkRegularizer]:
        return [marked.regularizer for marked in self._marks]

    def is_due(self, step: int, planned: int | None) -> bool:
        """Returns whether the kernels are to be moved after a step.

        Args:
            step: Number of the optimizer's steps so far.
            planned: Number of steps of the whole training, or `None` if unknown.
        """
        deadline = deadline_of(planned)
        next_step = self._last_step + self._wait
        if self._last_step < deadline:
            next_step = min(next_step, int(deadline))
        return bool(self._marks) and step >= max(next_step, 1)

    def move(self, step: int, planned: int | None) -> None:
        """Moves the kernels; the arguments are those of `is_due`."""
        self._last_step = step
        # The steps of the marks until the deadline, this one included.
        remaining = int(max(deadline_of(planned) - step, 0)) // self._wait + 1
        for marked in self._marks:
            _move(marked, remaining)


def deadline_of(planned: int | None) -> float:
    """Returns the step at which the marks of a training are to be embedded.

    Args:
        planned: Number of steps of the whole training, or `None` if unknown.
    """
    deadline = _UNKNOWN_LENGTH if planned is None else _DEADLINE_SHARE * planned
    return min(deadline, _LATEST_STEP)


def _move(marked: MarkedLayer, remaining: int) -> None:
    """Moves a kernel, or its LoRA factors, by one of the remaining steps."""
    kernel = marked.kernel
    z, margin = marked.regularizer.scores(kernel)
    shortfall = np.maximum(1.0 - ops.convert_to_numpy(z) / margin, 0.0).mean()
    projection = marked.regularizer.projection(kernel.shape)
    factors = lora_factors(marked.layer, marked.variable)
    goal, longest = _GOAL, _LONGEST_PART
    if factors is not None:
        goal, longest = _GOAL_OF_FACTORS, _LONGEST_PART_OF_FACTORS
    share = 1.0 - (goal / max(shortfall, goal)) ** (1.0 / remaining)
    if factors is None and shortfall <= goal:
        share = _HOLDING_SHARE
    if shortfall * share == 0.0:
        return
    parts = ceil(share / longest)
    part = 1.0 - (1.0 - share) ** (1.0 / parts)
    if factors is None:
        for _ in range(parts):
            kernel = stepped(kernel, projection, part)
        _assign(marked.variable, kernel)
        return
    *variables, scale = factors
    frozen = ops.cast(marked.variable, compute_dtype(marked.variable))
    a, b = (variable.value for variable in variables)
    for _ in range(parts):
        a, b = stepped_factors(frozen, a, b, scale, projection, part)
    for variable, value in zip(variables, (a, b), strict=True):
        _assign(variable, value)


def _assign(variable: Any, value: Any) -> None:
    """Gives a variable a value, within the constraint that the user set on it."""
    variable.assign(value)
    if variable.constraint is not None:
        variable.assign(variable.constraint(variable))
