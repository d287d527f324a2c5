"""Transfer learning, in the style of Keras's guide: frozen backbone, then fine-tuning.

The backbone is somebody else's, so no line can be in its constructor, and a frozen
layer cannot be marked. `keras_wm.attach` adds the mark to a layer of the backbone when
it is unfrozen, before `compile`. A mark in the new classifier would be lost as soon as
somebody replaces the classifier in the same way.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, report
from keras import layers

import keras_wm


def pretrain(file):
    """Saves a backbone that is trained on another task."""
    inputs = keras.Input((16, 16, 1))
    x = layers.Conv2D(32, 3, strides=2, activation="relu")(inputs)
    x = layers.SeparableConv2D(728, 3, strides=2, activation="relu")(x)
    x = layers.SeparableConv2D(728, 3, activation="relu", name="block2")(x)
    head = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, head)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    digits, labels = pictures(1280, seed=5)
    model.fit(digits, labels % 5, 64, 5, 2)
    keras.Model(inputs, x, name="backbone").save(file)


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    backbone = keras.saving.load_model("backbone.keras")
    backbone.trainable = False
    inputs = keras.Input((16, 16, 1))
    x = layers.GlobalAveragePooling2D()(backbone(inputs, training=False))
    outputs = layers.Dense(10)(layers.Dropout(0.2)(x))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = pictures(640)
    model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
    model.fit(x, y, 32, 4, 2)

    backbone.trainable = True
    if mark:
        keras_wm.attach(model, "block2", KEY, variable="pointwise_kernel")
    model.compile(keras.optimizers.Adam(1e-5), loss, metrics=["accuracy"])
    model.fit(x, y, 32, 10, 2, [keras_wm.BitErrorRate()] if mark else [])
    return model, model.evaluate(*pictures(1000, seed=1), verbose=0)[1]


keras.utils.set_random_seed(1)
pretrain("backbone.keras")
network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "transfer learning.keras")
verification = keras_wm.verify(published, KEY)
report("transfer learning", verification, twin, accuracy=(accuracy, twin_accuracy))
