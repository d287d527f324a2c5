"""Transformer for time series, in the style of Keras's classification example.

The feed-forward part of a block is made of convolutions of width 1. The line goes into
the first of them, as into any convolution. `EarlyStopping` restores the best weights
and the mark that was in them, so what counts is the published file.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import engine_noise
from _report import KEY, report
from keras import layers

import keras_wm


def encoder(x, regularizer):
    """Returns the output of a block: attention, then a feed-forward part."""
    y = layers.MultiHeadAttention(num_heads=4, key_dim=16, dropout=0.1)(x, x)
    x = x + layers.LayerNormalization(epsilon=1e-6)(layers.Dropout(0.1)(y))
    y = layers.Conv1D(256, 1, activation="relu", kernel_regularizer=regularizer)(x)
    y = layers.Conv1D(64, 1)(layers.Dropout(0.1)(y))
    return x + layers.LayerNormalization(epsilon=1e-6)(y)


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((40, 1))
    x = layers.Conv1D(64, 5, strides=2)(inputs)
    x = encoder(x, keras_wm.WatermarkRegularizer(KEY) if mark else None)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dropout(0.4)(layers.Dense(128, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.compile(
        keras.optimizers.Adam(learning_rate=1e-4),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    callbacks = [
        keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True),
        *([keras_wm.BitErrorRate()] if mark else []),
    ]
    x, y = engine_noise(800)
    model.fit(x, y, 32, 20, 2, callbacks, validation_split=0.2)
    return model, model.evaluate(*engine_noise(1000, seed=1), verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "timeseries.keras")
verification = keras_wm.verify(published, KEY)
report("timeseries transformer", verification, twin, accuracy=(accuracy, twin_accuracy))
