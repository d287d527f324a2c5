"""A small marked model and its files, made once for all tests of verification."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import fixed_key

LAYER = "wide"


@dataclass(frozen=True)
class MarkedModel:
    """A trained model, the key that marks it, its files by their suffix, its data."""

    model: Any
    key: Any
    files: dict[str, Path]
    x: Any
    y: Any


def with_mark(kernel, key, strength):
    """A kernel moved towards every bit of a key's message, so far of its own std."""
    size, count = key.check_shape(kernel.shape)
    rows = key.signs[:, None] * key.matrix(size)
    weights = key.filter_weights(count)[np.arange(key.bits) % key.groups]
    toward = (rows.T @ weights).reshape(kernel.shape)
    return kernel + strength * kernel.std() / toward.std() * toward


def make_marked_model(folder):
    """Trains a small convolutional network with a mark of 64 bits in one layer."""
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
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(64, 8, 8, 1)), rng.integers(0, 4, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    model.fit(x, y, epochs=25, batch_size=16, verbose=0)
    names = {".keras": "a.keras", ".h5": "a.h5", ".weights.h5": "a.weights.h5"}
    files = {suffix: publish(model, folder / name) for suffix, name in names.items()}
    return MarkedModel(model, key, files, x, y)
