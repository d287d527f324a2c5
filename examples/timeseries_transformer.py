"""Transformer for time series, in the style of Keras's classification example.

The feed-forward part of a block is made of convolutions of width 1. The line goes into
the first of them, as into any convolution. `EarlyStopping` restores the best weights
and the mark that was in them, so what counts is the published file.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import engine_noise
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def encoder(x, mark):
    """Returns the output of a block: attention, then a feed-forward part."""
    y = layers.MultiHeadAttention(num_heads=4, key_dim=16)(x, x)
    x = x + layers.LayerNormalization()(y)
    y = layers.Conv1D(256, 1, activation="relu", kernel_regularizer=mark)(x)
    return x + layers.LayerNormalization()(layers.Conv1D(64, 1)(y))


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((40, 1))
    x = encoder(layers.Conv1D(64, 5, strides=4)(inputs), mark)
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    # Otherwise TensorFlow traces the first step twice, to create these variables.
    model.optimizer.build(model.trainable_variables)
    # It monitors the loss on the validation data.
    stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    callbacks = [stop, keras_wm.BitErrorRate()] if mark else [stop]
    x, y = engine_noise(1600)
    model.fit(x, y, 32, 3, 2, callbacks, validation_split=0.2)
    return model, accuracy(model, *engine_noise(1000, seed=1))


network, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "timeseries_transformer.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
