"""A model with nested models and wrappers, saved by the installed Keras."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Saved:
    """The files of one model by format, and its kernels by layer."""

    files: dict[str, Path]
    kernels: dict[str, np.ndarray]


def write_all_formats(folder):
    """Saves a model with optimizer state in every format; returns `Saved`."""
    import keras

    layers = keras.layers
    encoder = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, "sigmoid", name="narrow")], name="encoder"
    )
    encoder.compile("adam", "mse", run_eagerly=True)
    encoder.fit(np.zeros((1, 3)), np.zeros((1, 4)), verbose=0)
    image = keras.Input((4, 4, 1), name="image")
    x = layers.Conv2D(2, 3, name="first_conv")(image)
    x = layers.Conv2D(3, 2, name="second_conv")(x)
    x = layers.Reshape((1, 3))(x)
    x = layers.TimeDistributed(layers.Dense(3, name="each"), name="rows")(x)
    x = layers.Flatten()(keras.ops.add(x, 1.0))
    model = keras.Model(image, encoder(x), name="host")
    # One step of training creates the state. Tracing a graph would take longer.
    metrics = [keras.metrics.MeanIoU(2)]
    model.compile("adam", "mse", metrics=metrics, run_eagerly=True)
    model.fit(np.zeros((1, 4, 4, 1)), np.zeros((1, 4)), verbose=0)
    files = {
        "archive": folder / "a.keras",
        "weights": folder / "a.weights.h5",
        "legacy": folder / "a.h5",
        "legacy weights": folder / "only_weights.h5",
    }
    for key in ("archive", "legacy"):
        model.save(files[key])
    model.save_weights(files["weights"])
    _write_legacy_weights(files["legacy"], files["legacy weights"])
    inner = {
        "first_conv": model.get_layer("first_conv"),
        "second_conv": model.get_layer("second_conv"),
        "rows/each": model.get_layer("rows").layer,
        "encoder/narrow": encoder.get_layer("narrow"),
    }
    kernels = {name: np.asarray(layer.kernel) for name, layer in inner.items()}
    return Saved(files, kernels)


def _write_legacy_weights(whole, path):
    """Writes the groups of a whole model at the root, as `save_weights` of Keras 2."""
    import h5py

    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
        target.attrs["layer_names0"] = np.array([b"first_conv", b"second_conv"])
        target.attrs["layer_names1"] = np.array([b"rows", b"encoder"])
