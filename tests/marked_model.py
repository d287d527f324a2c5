"""A small marked model and its files, shared by all tests of verification."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import fixed_key

LAYER = "wide"
# Gives each of the 64 bits a mean score of about 3 in the shared model's kernel.
STRENGTH = 0.5


@dataclass(frozen=True)
class MarkedModel:
    """A marked model, its key, its files by suffix, and its training data."""

    model: Any
    key: Any
    files: dict[str, Path]
    x: Any
    y: Any


def with_mark(kernel, key, strength):
    """Returns a kernel with a mark that is written into it, without training.

    Adds the sum of all `s_j x_j a_j`, or the `s_j x_j` of all blocks for a recipient's
    key, times the matrix of its anchor. It raises the score of every bit.

    Args:
        kernel: Array of rank 2 or more, filters last.
        key: The key of the mark.
        strength: Standard deviation of the added weights, in those of the kernel.
    """
    mark = key.for_shape(kernel.shape)
    rows = mark.signs[:, None] * mark.matrix
    if key.recipient:
        added = np.pad(rows.ravel(), (0, kernel.size - rows.size))
    else:
        added = rows.T @ mark.filter_weights[np.arange(key.bits) % key.groups]
    added = added.reshape(mark.size, mark.count)
    if key.anchor is not None:
        added = key.anchor.applied(added)
    added = added.reshape(kernel.shape)
    return kernel + strength * kernel.std() / added.std() * added


def make_marked_model(folder):
    """Makes a small convolutional network with a mark of 64 bits in one layer.

    The mark is written into the kernel. The head roughly separates the quadrants of the
    first two principal components of its inputs, and its answers are the labels. Two
    steps of training then move every weight. The network knows nearly all labels.
    """
    import keras

    from keras_wm import WatermarkRegularizer, publish

    key = fixed_key(64)
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu", name="narrow"),
            keras.layers.Conv2D(
                32,
                3,
                activation="relu",
                kernel_regularizer=WatermarkRegularizer(key, strength=1e-2),
                name=LAYER,
            ),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4, name="logits"),
        ],
        name="host",
    )
    kernel = model.get_layer(LAYER).kernel
    kernel.assign(with_mark(keras.ops.convert_to_numpy(kernel), key, STRENGTH))
    x = np.random.default_rng(1).normal(size=(64, 8, 8, 1))
    features = x
    for layer in model.layers[:-1]:
        features = layer(features)
    features = keras.ops.convert_to_numpy(features)
    mean = features.mean(axis=0)
    _, _, directions = np.linalg.svd(features - mean)
    logits = model.get_layer("logits")
    weights = keras.ops.convert_to_numpy(logits.kernel)
    weights = weights + 10 * directions[:2].T @ [[-1, -1, 1, 1], [-1, 1, -1, 1]]
    logits.set_weights([weights, -mean @ weights])
    y = ((features - mean) @ weights).argmax(axis=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Two eager steps cost less than tracing a compiled one.
    model.compile(keras.optimizers.SGD(1e-4), loss, run_eagerly=True)
    model.fit(x, y, epochs=2, batch_size=64, verbose=0)
    model.compile("adam", loss)
    names = {".keras": "a.keras", ".h5": "a.h5", ".weights.h5": "a.weights.h5"}
    files = {suffix: publish(model, folder / name) for suffix, name in names.items()}
    return MarkedModel(model, key, files, x, y)
