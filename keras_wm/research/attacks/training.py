"""An attacker's training: its duration, learning rate, optimizer and loss."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_wm.embedding.anchoring.kernel_inputs import replaced_calls
from keras_wm.embedding.marked_layers import own_variables, sublayers
from keras_wm.research.attacks.attack import unfreeze
from keras_wm.research.datasets import Examples, are_probabilities
from keras_wm.research.hosts.wide_resnet import paper_optimizer

BATCH = 32
# Steps of one attack: eight epochs of the 1,257 digits. Larger data sets get one epoch.
STEPS = 320
# The number of unlabelled examples of attacks that do not train.
EXAMPLES = 300
# The learning rate of attacks whose strength is another quantity.
RATE = 0.01


def fine_tuning_epochs(data: Examples) -> int:
    """Returns the number of epochs that take about `STEPS` steps, at least 1."""
    return max(1, round(STEPS / _steps(data)))


def train(
    model: Any,
    data: Examples,
    rate: float,
    epochs: int | None = None,
    layers: Collection[Any] | None = None,
) -> None:
    """Trains a network on labels, with the penalties that its weights have.

    The loss is the cross-entropy of probabilities or of logits, depending on the
    network's outputs. The optimizer is that of the papers.

    Args:
        model: The network; its weights are changed.
        data: Training data.
        rate: Initial learning rate.
        epochs: Number of epochs. `None` is about 320 steps of 32 examples, and at
            least one epoch.
        layers: Layers to train. The others are frozen, also the statistics of
            normalizations. `None` trains all layers.

    Raises:
        ValueError: If the data do not fit the network's inputs or outputs.
    """
    check_data(model, data)
    loss = label_loss(model, data)
    if layers is not None:
        _freeze_all_but(model, layers)
    try:
        fit(model, data, loss, rate, epochs or fine_tuning_epochs(data))
    finally:
        unfreeze(model)


def fit(trained: Any, data: Examples, loss: Any, rate: float, epochs: int) -> None:
    """Compiles and trains a network or a distiller."""
    compile_for(trained, loss, _steps(data) * epochs, rate)
    trained.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=epochs, verbose=0)


def unlabelled(
    data: Examples, count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Returns randomly chosen training examples, without their labels."""
    return data.x_train[rng.permutation(len(data.x_train))[:count]]


def refit_normalizations(model: Any, inputs: Any) -> None:
    """Sets the statistics of all batch normalizations to those of some inputs.

    Dropout is not active, as when the network is used.
    """
    layers = [
        layer
        for layer in sublayers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    if not layers:
        return
    momentums = [layer.momentum for layer in layers]
    with replaced_calls(layers, lambda layer: partial(_training, layer.call)):
        for number, start in enumerate(range(0, len(inputs), BATCH)):
            for layer in layers:
                # The moving average then is the mean over the batches so far.
                layer.momentum = number / (number + 1)
            model(inputs[start : start + BATCH], training=False)
    for layer, momentum in zip(layers, momentums, strict=True):
        layer.momentum = momentum


def _training(call: Any, *args: Any, **kwargs: Any) -> Any:
    """Calls a layer as in training."""
    return call(*args, **(kwargs | {"training": True}))


def compile_for(trained: Any, loss: Any, steps: int, rate: float) -> None:
    """Compiles a network or a distiller with the papers' optimizer.

    The number of steps determines the schedule of the learning rate.
    """
    compile_with(trained, loss, paper_optimizer(steps, rate))


def compile_with(trained: Any, loss: Any, optimizer: Any) -> None:
    """Compiles a network or a distiller with an optimizer."""
    trained.compile(
        optimizer,
        loss,
        # XLA takes longer to compile these networks than to train them.
        jit_compile=keras.backend.backend() == "jax",
    )


def label_loss(model: Any, data: Examples) -> Any:
    """Returns the Keras loss for labels: cross-entropy of probabilities or logits."""
    logits = not gives_probabilities(model, data)
    if model.outputs[0].shape[-1] == 1:
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def gives_probabilities(model: Any, data: Examples) -> bool:
    """Returns whether a network's outputs are probabilities and not logits."""
    outputs = model(data.x_train[:BATCH], training=False)
    return are_probabilities(model, keras.ops.convert_to_numpy(outputs))


def check_data(model: Any, data: Examples) -> None:
    """Checks that a network can be trained on data.

    Raises:
        ValueError: If the network does not have one input and one output, or the
            examples or labels do not fit them.
    """
    inputs, outputs = getattr(model, "inputs", ()), getattr(model, "outputs", ())
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "Expected a Functional or Sequential model with one input and one output, "
            f"to train it on labelled examples. Received: {model.name!r}, a "
            f"{type(model).__name__} with {len(inputs)} inputs and {len(outputs)} "
            "outputs"
        )
    expected, shape = model.inputs[0].shape[1:], data.x_train.shape[1:]
    fits = len(expected) == len(shape) and all(
        size in (None, received) for size, received in zip(expected, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"Expected examples of shape {expected}, the input of {model.name!r}. "
            f"Received: examples of shape {shape}"
        )
    output_shape = model.outputs[0].shape
    labels = data.y_train
    lowest, highest = int(labels.min()), int(labels.max())
    # A single output distinguishes two classes.
    if len(output_shape) != 2 or lowest < 0 or highest >= max(output_shape[-1], 2):
        raise ValueError(
            "Expected labels that start at 0, and a classifier with one output for "
            "each class, or a single output for two classes. Received: labels from "
            f"{lowest} to {highest}, and {model.name!r} with outputs of shape "
            f"{output_shape}"
        )


def _steps(data: Examples) -> int:
    """Returns the number of steps in an epoch."""
    return math.ceil(len(data.x_train) / BATCH)


def _freeze_all_but(model: Any, layers: Collection[Any]) -> None:
    chosen = {id(inner) for layer in layers for inner in sublayers(layer)}
    for layer in sublayers(model):
        # Freezing a nested model would freeze the layers in it, so it is skipped.
        if own_variables(layer):
            layer.trainable = id(layer) in chosen
