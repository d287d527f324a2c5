"""A switch that turns the penalty of a mark off while the mark has steps of its own."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import keras

from keras_wm.embedding.marked_layers import MarkedLayer, sublayers


class PenaltySwitch(keras.layers.Layer):
    """Holds the switch as a variable that compiled steps read: 1 for on, 0 for off.

    It is put among the sublayers of the marked layer, because JAX's trainer passes only
    the variables of a model's layers to its compiled steps. Its variable is not a
    weight of the model: it is neither saved, nor counted, nor returned by
    `get_weights`. But `model.export` would write it, so the switch is there only while
    `fit` trains.

    Attributes:
        is_on: The variable.
    """

    def __init__(self) -> None:
        super().__init__(name="watermark_switch", dtype="float32")
        self.is_on = self.add_weight((), "ones", trainable=False, autocast=False)
        self.built = True

    @property
    def weights(self) -> list[Any]:
        """The weights of the model in this layer: none."""
        return []


def switch_off(model: Any, marked: MarkedLayer) -> bool:
    """Turns the penalty of a mark off in all steps of a model.

    Returns:
        Whether compiled steps have to be rebuilt, because they do not read the switch.
    """
    is_new = marked.regularizer.switch is None
    if is_new:
        # TensorFlow needs the variables of a distributed model in its scope.
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy else nullcontext():
            marked.regularizer.switch = PenaltySwitch()
    # Steps that were compiled in an earlier training read the same switch.
    switch = marked.regularizer.switch
    switch.is_on.assign(0.0)
    if switch not in marked.layer._layers:
        marked.layer._layers.append(switch)
    return is_new


def remove_switches(model: Any) -> None:
    """Turns the penalties of a model on again, and removes the switches from it."""
    for layer in sublayers(model):
        switches = [part for part in layer._layers if isinstance(part, PenaltySwitch)]
        if switches:
            for switch in switches:
                switch.is_on.assign(1.0)
            layer._layers[:] = [part for part in layer._layers if part not in switches]
