"""Warnings of marks that a training does not embed, with the cause and the remedy."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from keras_wm.embedding.marked_layers import (
    MarkedLayer,
    find_marked_layers,
    warn_of_shared_slots,
)
from keras_wm.embedding.measuring import (
    Measurement,
    averages_weights,
    mean_in_errors,
)
from keras_wm.utils.arrays import Floats
from keras_wm.verification.standing import MARKED, PROVEN

# A mark with a given strength is expected to move after this number of steps. One with
# steps of its own should be embedded at its deadline.
_STEPS = 20
# Without a penalty, the scores change independently of the key: their mean change over
# its standard error is about standard normal. It exceeds this with probability 3e-5.
_DRIFT = 4.0


def warn_of_untrained_marks(model: Any) -> list[MarkedLayer]:
    """Warns of marks that are not trained for a reason that shows before training.

    Args:
        model: A Keras model with all its weights.

    Returns:
        The marked layers.
    """
    marked_layers = find_marked_layers(model)
    if not marked_layers:
        warnings.warn(
            "BitErrorRate found no mark in this model, so none is being "
            "embedded. Give a layer kernel_regularizer=WatermarkRegularizer(key), "
            "or call keras_wm.attach(model, layer, key). A model that was loaded, "
            "pickled or cloned has lost the regularizer that attach added.",
            stacklevel=4,
        )
    for marked in marked_layers:
        if marked.problem:
            warnings.warn(
                f"The mark on layer {marked.name!r} is not being trained: "
                f"{marked.problem}.",
                stacklevel=4,
            )
    warn_of_shared_slots(model)
    return marked_layers


class DriftCheck:
    """Finds marks whose embedding loss does not fall, and warns once of each.

    This does not look at the code of a training step, but at what it does to the
    scores.

    Args:
        model: The model that is trained.
        measured: The marks before the first step, by layer name.
    """

    def __init__(self, model: Any, measured: dict[str, Measurement]) -> None:
        self._model = model
        # The scores before training of the marks that have not moved yet.
        self._before = {
            name: item.detection.z
            for name, item in measured.items()
            if not item.marked.problem and item.detection.ber > 0
        }
        self._warned: set[str] = set()

    def warn_of_still_marks(
        self, measured: dict[str, Measurement], steps: int, deadline: float
    ) -> None:
        """Warns of each mark that should have moved by now, but has not.

        Args:
            measured: The marks now, by layer name.
            steps: Number of training steps so far.
            deadline: Number of steps after which marks are to be embedded.
        """
        for name in self._still(measured):
            regularizer = measured[name].marked.regularizer
            latest = deadline if regularizer.decoupled else _STEPS
            if steps > max(latest, _STEPS) and name not in self._warned:
                self._warned.add(name)
                cause = self._likely_cause(self._before[name], measured[name])
                warnings.warn(
                    f"The mark on layer {name!r} is not being embedded: its embedding "
                    f"loss has not fallen in {steps} steps. {cause}",
                    stacklevel=4,
                )

    def warn_of_incomplete_marks(self, measured: dict[str, Measurement]) -> None:
        """Warns of each mark that is not complete at the end of a training.

        Args:
            measured: The marks in the weights that the training leaves.
        """
        still = self._still(measured)
        for name, item in measured.items():
            if item.detection.ber > 0 and not item.marked.problem:
                remedy = _remedy(item, averages_weights(self._model))
                if name in still:
                    remedy = self._likely_cause(self._before[name], item)
                warnings.warn(
                    "Training has ended, but the mark on layer "
                    f"{name!r} is not complete: bit error rate "
                    f"{item.detection.ber:.2g}, smallest score "
                    f"{item.detection.z_min:.2g}, verdict {_verdict(item)!r}. {remedy}",
                    stacklevel=4,
                )

    def _still(self, measured: dict[str, Measurement]) -> list[str]:
        """Returns the names of the marks that have not moved so far."""
        for name, before in list(self._before.items()):
            if name not in measured or _drifts(before, measured[name]):
                del self._before[name]
        return list(self._before)

    def _likely_cause(self, before: Floats, item: Measurement) -> str:
        """Returns why a mark is not being embedded, and what to do."""
        mark = item.marked.regularizer
        if mark.decoupled:
            return (
                "Something undoes the steps that BitErrorRate makes: a constraint, a "
                "callback that sets weights, or a training loop that keeps the weights "
                "outside of the model. In such a loop, give a strength, such as "
                "strength=1e-3, and add to the loss: "
                "keras_wm.penalty(model, trainable_variables)"
            )
        if np.array_equal(before, item.detection.z):
            return (
                "Its kernel has not changed at all: either the training step does not "
                "update this layer, or the learning rate is 0."
            )
        own = own_training_code(self._model)
        # On JAX, Keras calls compute_loss in a scope that has the traced values.
        needs_values = keras.backend.backend() == "jax" and not own.endswith("_loss")
        values = ", trainable_variables" if needs_values else ""
        if own:
            return (
                f"{own} probably leaves out the penalties of the layers. Add this line "
                "where it computes the loss: "
                f"loss += keras_wm.penalty(self{values})"
            )
        return (
            f"Its strength of {mark.strength:g} is probably too small for this "
            "optimizer, or the loss that is trained leaves out model.losses. Leave out "
            "strength=, so that BitErrorRate embeds the mark, or add to the loss: "
            f"keras_wm.penalty(model{values})"
        )


def warn_of_checkpoints(bit_error_rate: float) -> None:
    """Warns of an incomplete mark in checkpoints that have other weights than fit left.

    Args:
        bit_error_rate: That of the weights that are not averaged.
    """
    warnings.warn(
        "The weights that this training leaves are averages (use_ema). Checkpoints "
        "that were saved during the training have other weights, with a bit error "
        f"rate of {bit_error_rate:.2g} at the end. Publish the model that fit leaves.",
        stacklevel=4,
    )


def _drifts(before: Floats, item: Measurement) -> bool:
    """Returns whether the scores of a mark have moved to the key's side."""
    return mean_in_errors(item.detection.z - before) >= _DRIFT


def own_training_code(model: Any) -> str:
    """Returns the method of a model that replaces Keras's computation of the loss.

    It is named as `"Class.method"`; an empty string if Keras's own is used.
    """
    for method in ("train_step", "compute_loss_and_updates", "compute_loss"):
        for cls in type(model).__mro__:
            if method in vars(cls):
                if cls.__module__.split(".")[0] not in ("keras", "keras_wm"):
                    return f"{cls.__name__}.{method}"
                break
    return ""


def _verdict(item: Measurement) -> str:
    """Returns the verdict on one kernel, whose p-value is not corrected for others."""
    log10_p = item.detection.log10_p
    if log10_p < np.log10(PROVEN):
        return "proven"
    return "marked" if log10_p < np.log10(MARKED) else "not found"


def _remedy(item: Measurement, averaged: bool) -> str:
    """Returns what completes a mark that was trained, but not long enough."""
    if averaged:
        return (
            "The weights are averages over the training (use_ema), which the mark has "
            "not reached yet. Compile the model without use_ema, and call fit again "
            "for a few epochs with the same callbacks."
        )
    regularizer = item.marked.regularizer
    stronger = (
        f"with strength={10 * regularizer.strength:.1g}"
        if regularizer.loss == "crossentropy"
        else "without strength=, so that BitErrorRate embeds the mark"
    )
    again = "Call fit again for a few epochs with the same callbacks"
    if regularizer.decoupled:
        return (
            f"{again}, and keep the weights of its end: the mark is embedded within "
            "half of the planned steps. If that does not help, mark a larger kernel."
        )
    return f"{again}, or train {stronger}."
