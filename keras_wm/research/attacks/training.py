"""How an attacker trains a network: how long, at which rate, by which loss."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import keras

from keras_wm.embedding.marked_layers import own_variables, sublayers
from keras_wm.research.answers import answers_probabilities
from keras_wm.research.attacks.attack import unfreeze
from keras_wm.research.datasets import Examples
from keras_wm.research.hosts.wide_resnet import paper_optimizer

BATCH = 32
# The 1,257 digits are seen eight times; what is larger, at least once.
STEPS = 320
# For an attack whose strength is something else.
RATE = 0.01


def fine_tuning_epochs(data: Examples) -> int:
    """How often an attacker who trains for a short while goes through his data."""
    return max(1, round(STEPS / _steps(data)))


def train(
    model: Any,
    data: Examples,
    rate: float,
    epochs: int | None = None,
    layers: Collection[Any] | None = None,
) -> None:
    """Trains a network on labels, with the penalties that are on its weights.

    The loss is the cross-entropy, of probabilities or of logits, as the network
    answers; the optimizer is the papers'.

    Args:
        model: Its weights are changed.
        data: What it is trained on.
        rate: The learning rate at first.
        epochs: How often the data are gone through. `None` is about 320 steps of 32
            examples, and at least once.
        layers: The only layers that are trained, normalizations' statistics
            included. `None` is all.

    Raises:
        ValueError: If the data are not what the network takes and answers.
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
    """Compiles a network, or what trains one, and trains it."""
    compile_for(trained, loss, _steps(data) * epochs, rate)
    trained.fit(data.x_train, data.y_train, batch_size=BATCH, epochs=epochs, verbose=0)


def compile_for(trained: Any, loss: Any, steps: int, rate: float) -> None:
    """Compiles what is to be trained for so many steps by the papers' optimizer."""
    trained.compile(
        paper_optimizer(steps, rate),
        loss,
        # XLA takes longer to compile these networks than to train them.
        jit_compile=keras.backend.backend() == "jax",
    )


def label_loss(model: Any, data: Examples) -> Any:
    """The cross-entropy of labels and what a network answers."""
    logits = not gives_probabilities(model, data)
    if model.outputs[0].shape[-1] == 1:
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def gives_probabilities(model: Any, data: Examples) -> bool:
    """Whether a network gives probabilities for its data, and not logits."""
    answers = model(data.x_train[:BATCH], training=False)
    return answers_probabilities(model, keras.ops.convert_to_numpy(answers))


def check_data(model: Any, data: Examples) -> None:
    """Refuses data that a network cannot be trained on.

    Raises:
        ValueError: Saying what it takes and answers.
    """
    inputs, outputs = getattr(model, "inputs", ()), getattr(model, "outputs", ())
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "Expected a Functional or Sequential model of one input and one output, "
            f"which examples with labels can train. Received: {model.name!r}, a "
            f"{type(model).__name__} of {len(inputs)} inputs and {len(outputs)} outputs"
        )
    expected, shape = model.inputs[0].shape[1:], data.x_train.shape[1:]
    fits = len(expected) == len(shape) and all(
        size in (None, given) for size, given in zip(expected, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"Expected examples of shape {expected}, which {model.name!r} takes. "
            f"Received: examples of shape {shape}"
        )
    answers = model.outputs[0].shape
    labels = data.y_train
    lowest, highest = int(labels.min()), int(labels.max())
    # One answer is for two classes.
    if len(answers) != 2 or lowest < 0 or highest >= max(answers[-1], 2):
        raise ValueError(
            "Expected labels from 0 on, and a classifier with an answer for each of "
            "them, or one for two. Received: labels from "
            f"{lowest} to {highest}, and {model.name!r} with answers of shape {answers}"
        )


def _steps(data: Examples) -> int:
    """The steps of an epoch."""
    return math.ceil(len(data.x_train) / BATCH)


def _freeze_all_but(model: Any, layers: Collection[Any]) -> None:
    chosen = {id(inner) for layer in layers for inner in sublayers(layer)}
    for layer in sublayers(model):
        # A model that holds layers has to stay trainable for their sake.
        if own_variables(layer):
            layer.trainable = id(layer) in chosen
