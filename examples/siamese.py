"""Siamese network with a contrastive loss, in the style of Keras's example.

Both towers are one network with one set of weights, so the line is written once, in
this network. Keras counts its penalty once, although the network is called twice.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
import numpy as np
from _data import pictures
from _report import KEY, report
from keras import layers, ops

import keras_wm


def distance(towers):
    """Returns the Euclidean distance between the outputs of both towers."""
    squares = ops.sum(ops.square(towers[0] - towers[1]), axis=1, keepdims=True)
    return ops.sqrt(ops.maximum(squares, keras.config.epsilon()))


def contrastive_loss(different, predicted):
    """Pulls pictures of one class together, and pushes others 1 apart."""
    near = (1 - different) * ops.square(predicted)
    return ops.mean(near + different * ops.square(ops.maximum(1 - predicted, 0)))


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
    inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, activation="tanh")(layers.BatchNormalization()(inputs))
    x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2D(16, 3, activation="tanh")(x)
    x = layers.BatchNormalization()(layers.Flatten()(x))
    x = layers.Dense(
        64,
        activation="tanh",
        kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
    )(x)
    tower = keras.Model(inputs, layers.Dense(10, activation="tanh")(x))
    first, second = keras.Input((16, 16, 1)), keras.Input((16, 16, 1))
    merged = layers.Lambda(distance, (1,))([tower(first), tower(second)])
    score = layers.BatchNormalization()(merged)
    # A positive weight from the start: a larger distance means another class.
    outputs = layers.Dense(1, "sigmoid", kernel_initializer="ones")(score)
    model = keras.Model([first, second], outputs)
    model.compile("RMSprop", contrastive_loss, metrics=["accuracy"])
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    model.fit(*pairs(1600, 0), 16, 3, 2, callbacks, validation_data=pairs(200, 1))
    return model, model.evaluate(*pairs(1000, 2), verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "siamese.keras")
verification = keras_wm.verify(published, KEY)
report("siamese", verification, twin, accuracy=(accuracy, twin_accuracy))
