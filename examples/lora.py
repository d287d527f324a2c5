"""Fine-tuning by low-rank adaptation (LoRA), in the style of Keras's examples.

LoRA freezes a kernel and trains two small factors. They have little room: a mark in
them costs accuracy. So the line goes into the network that holds the merged kernel.
Saving the weights merges the factors, and a short training embeds the mark.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, report
from keras import layers

import keras_wm


def build(mark=False):
    """Returns a network. Its first dense layer is adapted, and can be marked."""
    marking = keras_wm.WatermarkRegularizer(KEY) if mark else None
    adapted = layers.Dense(128, activation="relu", kernel_regularizer=marking)
    inputs = keras.Input((16, 16, 1))
    return keras.Sequential([inputs, layers.Flatten(), adapted, layers.Dense(10)])


def fit(model, optimizer, x, y, epochs, callbacks=()):
    """Compiles and trains a network."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(x, y, 32, epochs, 2, list(callbacks))


def train(mark):
    """Returns the trained network and its accuracy on upside-down test pictures."""
    keras.utils.set_random_seed(1)
    x, y = pictures(1600)
    base = build()
    fit(base, "adam", x, y, 4)
    base.layers[1].enable_lora(rank=4)
    optimizer = keras.optimizers.AdamW(learning_rate=1e-3, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    fit(base, optimizer, x[:, ::-1], y, 6)
    base.save_weights("merged.weights.h5")

    merged = build(mark)
    merged.load_weights("merged.weights.h5")
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    fit(merged, keras.optimizers.Adam(3e-4), x[:, ::-1], y, 6, callbacks)
    x, y = pictures(1000, seed=1)
    return merged, merged.evaluate(x[:, ::-1], y, verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "LoRA.keras")
verification = keras_wm.verify(published, KEY)
report("LoRA", verification, twin, accuracy=(accuracy, twin_accuracy))
