"""A small network that an attacker trains further, and pictures for it."""

import dataclasses

import keras
import numpy as np
from keras import layers

from tests.research.experiments.conftest import made_pictures

PICTURES = made_pictures()
# Two classes instead of three: whether a picture is of the third class.
IS_THIRD = dataclasses.replace(
    PICTURES, y_train=PICTURES.y_train // 2, y_test=PICTURES.y_test // 2
)
# The names of the layers do not show which one is the head.
MARKED, HEAD = "three", "four"


def network(activation=None, functional=False, seed=3, outputs=3):
    """Builds a network for `PICTURES`. Its layers with weights are `one` to `four`."""
    keras.utils.set_random_seed(seed)
    stack = [
        layers.Conv2D(8, 3, use_bias=False, kernel_regularizer="l2", name="one"),
        layers.BatchNormalization(name="two", momentum=0.5),
        layers.ReLU(),
        layers.Conv2D(16, 3, activation="relu", use_bias=False, name=MARKED),
        layers.GlobalAveragePooling2D(),
        layers.Dense(outputs, activation, name=HEAD),
    ]
    if not functional:
        return keras.Sequential([keras.Input((8, 8, 1)), *stack])
    inputs = x = keras.Input((8, 8, 1))
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def arrays(model):
    """Returns copies of the weights by layer and name, such as `"one/kernel"`."""
    return {
        f"{layer.name}/{variable.name}": keras.ops.convert_to_numpy(variable).copy()
        for layer in model.layers
        for variable in layer.weights
    }


def changed(model, before):
    """Returns the names of the weights that differ from the arrays before."""
    now = arrays(model)
    return {name for name in now if not np.array_equal(now[name], before[name])}


def outputs_of(model):
    """Returns a classifier's outputs for the test pictures."""
    return keras.ops.convert_to_numpy(model(PICTURES.x_test, training=False))


def correlation(left, right):
    """Returns the correlation of the elements of two arrays of one shape."""
    return np.corrcoef(np.ravel(left), np.ravel(right))[0, 1]
