"""Transfer learning, in the style of Keras's guide: frozen backbone, then fine-tuning.

The backbone is somebody else's, so no line can be in its constructor, and a frozen
layer cannot be marked. `keras_wm.attach` adds the mark to a layer of the backbone when
it is unfrozen, before `compile`. A mark in the new classifier would be lost as soon as
somebody replaces the classifier in the same way.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def pretrain(file):
    """Saves a backbone that is trained on another task."""
    backbone = keras.Sequential([keras.Input((12, 12, 1))], name="backbone")
    backbone.add(layers.Conv2D(32, 3, strides=2, activation="relu"))
    backbone.add(layers.SeparableConv2D(256, 3, activation="relu"))
    backbone.add(layers.SeparableConv2D(256, 3, activation="relu", name="block2"))
    model = keras.Sequential([backbone, layers.Flatten(), layers.Dense(5)])
    x, labels = pictures(1600, noise=0.3, seed=5)
    fit(model, 1e-3, x, labels % 5)
    backbone.save(file)


def fit(model, rate, x, y, callbacks=()):
    """Compiles and trains a network."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(x, y, batch_size=32, epochs=3, verbose=2, callbacks=list(callbacks))


def train(key):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    backbone = keras.saving.load_model("backbone.keras")
    backbone.trainable = False
    pooling, dropout = layers.GlobalAveragePooling2D(), layers.Dropout(0.2)
    model = keras.Sequential([backbone, pooling, dropout, layers.Dense(10)])
    fit(model, 1e-3, *pictures(1280, noise=0.3))

    backbone.trainable = True
    if key:
        keras_wm.attach(model, "block2", key, variable="pointwise_kernel")
    fit(
        model,
        1e-4,
        *pictures(1280, noise=0.3),
        [keras_wm.BitErrorRate()] if key else [],
    )
    return model, accuracy(model, *pictures(1000, noise=0.3, seed=1))


keras.utils.set_random_seed(1)
pretrain("backbone.keras")
network, result = train(KEY)
published = keras_wm.publish(network, "transfer_learning.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
