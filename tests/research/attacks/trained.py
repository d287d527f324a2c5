"""A small network that an attacker trains further, and pictures to do it on."""

import dataclasses

import keras
import numpy as np
from keras import layers

from tests.research.experiments.conftest import made_pictures

PICTURES = made_pictures()
# Whether it is the third class.
IS_THIRD = dataclasses.replace(
    PICTURES, y_train=PICTURES.y_train // 2, y_test=PICTURES.y_test // 2
)
# Convolutions, normalizations and a head whose names tell nothing.
MARKED, HEAD = "three", "four"


def network(activation=None, functional=False, seed=3, answers=3):
    """A network for `PICTURES`, its layers with weights named `one` to `four`."""
    keras.utils.set_random_seed(seed)
    stack = [
        layers.Conv2D(8, 3, use_bias=False, kernel_regularizer="l2", name="one"),
        layers.BatchNormalization(name="two", momentum=0.5),
        layers.ReLU(),
        layers.Conv2D(16, 3, activation="relu", use_bias=False, name=MARKED),
        layers.GlobalAveragePooling2D(),
        layers.Dense(answers, activation, name=HEAD),
    ]
    if not functional:
        return keras.Sequential([keras.Input((8, 8, 1)), *stack])
    inputs = x = keras.Input((8, 8, 1))
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def arrays(model):
    """The weights by layer and name, such as `"one/kernel"`."""
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable)
        for layer in model.layers
        for variable in layer.weights
    }


def changed(model, before):
    """Which weights are other ones than before."""
    now = arrays(model)
    return {name for name in now if not np.array_equal(now[name], before[name])}


def error_of(model):
    """The share of test pictures that are told wrong."""
    answers = model.predict(PICTURES.x_test, verbose=0)
    return np.mean(answers.argmax(axis=1) != PICTURES.y_test)


def correlation(left, right):
    """Of two arrays of one shape."""
    return np.corrcoef(np.ravel(left), np.ravel(right))[0, 1]
