"""Convolutional denoising autoencoder, in the style of Keras's example.

The line goes into the last layer of the encoder, which is used in every application:
compression, retrieval and denoising. A transposed convolution can carry the mark too.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, report
from keras import layers, ops

import keras_wm


def train(mark):
    """Returns the trained network and its mean squared error on test pictures."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 1))
    x = layers.Conv2D(32, 3, 2, "same", activation="relu")(inputs)
    x = layers.Conv2D(64, 3, 2, "same", activation="relu", kernel_regularizer=mark)(x)
    x = layers.Conv2DTranspose(32, 3, 2, "same", activation="relu")(x)
    outputs = layers.Conv2DTranspose(1, 3, 2, "same", activation="sigmoid")(x)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "binary_crossentropy")
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    noisy, clean = pictures(1600)[0], pictures(1600, noise=0)[0]
    model.fit(noisy, clean, batch_size=64, epochs=5, verbose=2, callbacks=callbacks)
    noisy, clean = pictures(500, seed=1)[0], pictures(500, noise=0, seed=1)[0]
    output = ops.convert_to_numpy(model(noisy))
    return model, ((output - clean) ** 2).mean()


network, error = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "autoencoder.keras")
report(keras_wm.verify(published, KEY), train(None), mse=error)
