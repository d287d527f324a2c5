"""Convolutional denoising autoencoder, in the style of Keras's example.

The line goes into the last layer of the encoder, which is used in every application:
compression, retrieval and denoising. A transposed convolution can carry the mark too.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, report
from keras import layers

import keras_wm


def train(mark):
    """Returns the trained network and its mean squared error on test pictures."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(32, 3, activation="relu", padding="same")(inputs)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(
        64,
        3,
        activation="relu",
        padding="same",
        kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
    )(x)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, activation="relu", padding="same")(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, activation="relu", padding="same")(x)
    outputs = layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "binary_crossentropy", metrics=["mse"])
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    noisy, clean = pictures(1000)[0], pictures(1000, noise=0)[0]
    model.fit(noisy, clean, 64, 6, 2, callbacks, shuffle=True)
    noisy, clean = pictures(500, seed=1)[0], pictures(500, noise=0, seed=1)[0]
    return model, model.evaluate(noisy, clean, verbose=0)[1]


network, error = train(mark=True)
twin, twin_error = train(mark=False)
published = keras_wm.publish(network, "autoencoder.keras")
verification = keras_wm.verify(published, KEY)
report("autoencoder", verification, twin, mse=(error, twin_error))
