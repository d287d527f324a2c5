"""Segmentation by a U-Net, in the style of Keras's "Image segmentation".

A separable convolution has two kernels and a regularizer for each. The line goes into
`pointwise_regularizer`, because the pointwise kernel is the larger one. It is in the
deepest block, whose kernels have the most room.

Runs on TensorFlow and JAX. On PyTorch, Keras cannot compute the gradient of this
cross-entropy of pictures, also without a mark.
"""

import keras
from _data import discs
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def block(x, width, mark=None):
    """Returns the output of a separable convolution with batch normalization."""
    x = layers.SeparableConv2D(width, 3, padding="same", pointwise_regularizer=mark)(x)
    return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))


def train(mark):
    """Returns the trained network and its accuracy per pixel of test pictures."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3))
    skip = layers.Conv2D(16, 3, 2, "same", activation="relu")(inputs)
    x = layers.MaxPooling2D(2)(block(skip, 128))
    x = layers.UpSampling2D(2)(block(block(x, 128, mark), 16))
    x = layers.UpSampling2D(2)(layers.add([x, skip]))
    outputs = layers.Conv2D(3, 3, padding="same", activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
    # Otherwise TensorFlow traces the first step twice, to create these variables.
    model.optimizer.build(model.trainable_variables)
    # The penalty of the mark is a part of val_loss, so a metric is monitored.
    best = keras.callbacks.ModelCheckpoint("best.keras", "val_accuracy", 0, True)
    callbacks = [best, keras_wm.BitErrorRate()] if mark else [best]
    model.fit(*discs(400), 16, 5, 2, callbacks, validation_data=discs(100, seed=1))
    model = keras.saving.load_model("best.keras")
    return model, accuracy(model, *discs(100, seed=2))


network, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "unet.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
