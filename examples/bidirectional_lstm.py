"""Bidirectional LSTM, in the style of Keras's example on film reviews.

The line goes into the LSTM that `Bidirectional` wraps. The wrapper makes a copy of it
for each direction, so both copies carry the mark. Kernels of one shape need different
slots; here the backward layer gets slot 1.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import reviews
from _report import KEY, report
from keras import layers

import keras_wm


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(1000, 64)(inputs)
    regularizers = (
        [keras_wm.WatermarkRegularizer(KEY, slot=slot) for slot in (0, 1)]
        if mark
        else [None, None]
    )
    x = layers.Bidirectional(
        layers.LSTM(64, kernel_regularizer=regularizers[0]),
        backward_layer=layers.LSTM(
            64, go_backwards=True, kernel_regularizer=regularizers[1]
        ),
    )(x)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    x, y = reviews(1920)
    test = reviews(500, seed=1)
    model.fit(x, y, 32, 2, 2, callbacks, validation_data=test)
    return model, model.evaluate(*test, verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "bidirectional LSTM.keras")
verification = keras_wm.verify(published, KEY)
report("bidirectional LSTM", verification, twin, accuracy=(accuracy, twin_accuracy))
