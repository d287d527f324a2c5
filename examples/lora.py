"""Fine-tuning by low-rank adaptation (LoRA), in the style of Keras's examples.

LoRA freezes a kernel and trains two small factors. They have little room: a mark in
them costs accuracy. So the line goes into the network that holds the merged kernel.
Saving the weights merges the factors, and a short training embeds the mark.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def build(mark=None):
    """Returns a network. Its first dense layer is adapted, and can be marked."""
    adapted = layers.Dense(256, activation="relu", kernel_regularizer=mark)
    inputs = keras.Input((12, 12, 1))
    return keras.Sequential([inputs, layers.Flatten(), adapted, layers.Dense(10)])


def fit(model, rate, x, y, callbacks=()):
    """Compiles and trains a network."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(x, y, batch_size=32, epochs=3, verbose=2, callbacks=list(callbacks))


def train(mark):
    """Returns the trained network and its accuracy on upside-down test pictures."""
    keras.utils.set_random_seed(1)
    x, y = pictures(1600)
    base = build()
    fit(base, 1e-3, x, y)
    base.layers[1].enable_lora(rank=4)
    fit(base, 3e-3, x[:, ::-1], y)
    base.save_weights("merged.weights.h5")

    merged = build(mark)
    merged.load_weights("merged.weights.h5")
    fit(merged, 3e-4, x[:, ::-1], y, [keras_wm.BitErrorRate()] if mark else [])
    x, y = pictures(1000, seed=1)
    return merged, accuracy(merged, x[:, ::-1], y)


network, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "lora.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
