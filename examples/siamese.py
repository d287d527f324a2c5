"""Siamese network with a contrastive loss, in the style of Keras's example.

Both towers are one network with one set of weights, so the line is written once, in
this network. Keras counts its penalty once, although the network is called twice.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
import numpy as np
from _data import pictures
from _report import KEY, accuracy, report
from keras import layers, ops

import keras_wm


def contrastive_loss(different, distance):
    """Pulls pictures of one class together, and pushes others 1 apart."""
    near = (1 - different) * ops.square(distance)
    return ops.mean(near + different * ops.square(ops.maximum(1 - distance, 0)))


def pairs(count, seed):
    """Returns pairs of pictures, and 1 for each pair of different classes."""
    x, labels = pictures(count, shift=1, seed=seed)
    rng = np.random.default_rng(seed)
    same = [rng.choice(np.flatnonzero(labels == label)) for label in labels]
    partners = np.where(rng.random(count) < 0.5, same, rng.integers(0, count, count))
    different = (labels != labels[partners]).astype("float32")
    return [x, x[partners]], different[:, np.newaxis]


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 1))
    x = layers.Conv2D(8, 3, 2, activation="relu")(inputs)
    x = layers.Flatten()(x)
    x = layers.Dense(256, "relu", kernel_regularizer=mark)(x)
    tower = keras.Model(inputs, layers.Dense(10)(x))
    first, second = keras.Input((12, 12, 1)), keras.Input((12, 12, 1))
    # The small number keeps the gradient of the root finite.
    squares = ops.sum(ops.square(tower(first) - tower(second)), 1, keepdims=True)
    model = keras.Model([first, second], ops.sqrt(squares + 1e-7))
    model.compile("rmsprop", contrastive_loss)
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    model.fit(*pairs(2000, 0), 32, epochs=3, verbose=2, callbacks=callbacks)
    return model, accuracy(model, *pairs(1000, 1))


network, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "siamese.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
