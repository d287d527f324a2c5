"""Saves one model in every format that the installed Keras writes.

    python old_model.py keras keras_3_3      # or tf_keras tf_keras_2_21

writes `keras_3_3.keras` and so on, and `keras_3_3.npz` with the kernels as Keras
reads them back. It runs in the environments that `write_old_files.py` makes.
"""

import importlib
import sys

import numpy as np


def build(keras):
    """A model with two nested models that have a layer of the same name."""
    layers = keras.layers

    def coder(name, units):
        dense = layers.Dense(units, use_bias=False, name="narrow")
        return keras.Sequential([keras.Input((3,)), dense], name=name)

    image = keras.Input((4, 4, 1), name="image")
    x = layers.Conv2D(2, 3, use_bias=False, name="first_conv")(image)
    x = layers.Conv2D(3, 2, use_bias=False, name="second_conv")(x)
    x = layers.Reshape((1, 3), name="flat")(x)
    x = layers.TimeDistributed(
        layers.Dense(3, use_bias=False, name="each"), name="rows"
    )(x)
    x = layers.LSTM(3, use_bias=False, name="memory")(x)
    x = coder("decoder", 3)(coder("encoder", 3)(x))
    return keras.Model(image, layers.Dense(2, name="verdict")(x), name="host")


def kernels(model, within=""):
    """Every weight of two axes or more, by the layer's name and a number."""
    found = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found.update(kernels(layer, f"{within}{layer.name}/"))
            continue
        arrays = [w for w in layer.get_weights() if w.ndim > 1]
        for index, array in enumerate(arrays):
            found[f"{within}{layer.name}#{index}"] = array
    return found


def files(keras, model, stem):
    """Saves the model in each format; yields functions that read the files back."""
    # By default, Keras 2.12 writes HDF5 under any name.
    options = (
        {"save_format": "keras_v3"} if keras.__version__.startswith("2.12.") else {}
    )
    model.save(f"{stem}.keras", **options)
    yield lambda: keras.models.load_model(f"{stem}.keras", compile=False)
    # Keras 2 cannot write the optimizer's state for two layers of one name.
    model.save(f"{stem}.h5", include_optimizer=False)
    yield lambda: keras.models.load_model(f"{stem}.h5", compile=False)
    by_weights = [f"{stem}.weights.h5"]
    if keras.__version__.startswith("2."):
        by_weights.append(f"{stem}_weights.h5")
    for path in by_weights:
        model.save_weights(path)

        def load(path=path):
            other = build(keras)
            other.load_weights(path)
            return other

        yield load


def main():
    package, stem = sys.argv[1:]
    keras = importlib.import_module(package)
    model = build(keras)
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    model.fit(np.zeros((1, 4, 4, 1)), np.zeros((1, 2)), verbose=0)
    draw = np.random.default_rng(1).normal
    model.set_weights([draw(size=w.shape) for w in model.get_weights()])
    expected = kernels(model)
    for load in files(keras, model, stem):
        found = kernels(load())
        assert found.keys() == expected.keys()
        for name, kernel in expected.items():
            np.testing.assert_array_equal(found[name], kernel)
    np.savez_compressed(f"{stem}.npz", **expected)


main()
