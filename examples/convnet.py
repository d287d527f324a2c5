"""Convolutional network, in the style of Keras's "Simple MNIST convnet".

The line goes into the second convolution. Whoever fine-tunes the network replaces its
last layer and keeps this one, which has more weights than the first.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu", kernel_regularizer=mark),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    x, y = pictures(2000)
    model.fit(x, y, batch_size=64, epochs=4, verbose=2, callbacks=callbacks)
    return model, accuracy(model, *pictures(1000, seed=1))


network, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "convnet.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
