"""Convolutional network, in the style of Keras's "Simple MNIST convnet".

The line goes into the second convolution. Whoever fine-tunes the network replaces its
last layer and keeps this one, which has more weights than the first.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, report
from keras import layers

import keras_wm


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(
                64,
                3,
                activation="relu",
                kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
            ),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    x, y = pictures(1500)
    model.fit(x, y, 64, 8, 2, callbacks, validation_split=0.1)
    return model, model.evaluate(*pictures(1000, seed=1), verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "convnet.keras")
verification = keras_wm.verify(published, KEY)
report("convnet", verification, twin, accuracy=(accuracy, twin_accuracy))
