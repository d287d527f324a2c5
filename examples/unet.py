"""Segmentation by a U-Net, in the style of Keras's "Image segmentation".

A separable convolution has two kernels and a regularizer for each. The line goes into
`pointwise_regularizer`, because the pointwise kernel is the larger one. It is in the
deepest block, whose kernels have the most room.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import discs
from _report import KEY, report
from keras import layers

import keras_wm


def train(mark):
    """Returns the trained network and its accuracy per pixel of test pictures."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(inputs)
    skip = x
    x = layers.SeparableConv2D(128, 3, padding="same")(x)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.SeparableConv2D(
        128,
        3,
        padding="same",
        pointwise_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
    )(x)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Conv2DTranspose(16, 3, padding="same")(x)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.add([layers.UpSampling2D(2)(x), skip])
    x = layers.UpSampling2D(2)(x)
    outputs = layers.Conv2D(3, 3, padding="same", activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [
        # The penalty of the mark is a part of val_loss, so a metric is monitored.
        keras.callbacks.ModelCheckpoint(
            "unet-best.keras", monitor="val_accuracy", save_best_only=True
        ),
        *([keras_wm.BitErrorRate()] if mark else []),
    ]
    x, y = discs(320)
    model.fit(x, y, 32, 8, 2, callbacks, validation_split=0.2)
    model = keras.saving.load_model("unet-best.keras")
    return model, model.evaluate(*discs(200, seed=1), verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "U-Net.keras")
verification = keras_wm.verify(published, KEY)
report("U-Net", verification, twin, accuracy=(accuracy, twin_accuracy))
