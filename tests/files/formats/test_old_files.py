"""Files of Keras 2.12 and later, with the kernels that their writer read from them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from keras_wm.files import open_model_file

DATA = Path(__file__).parents[1] / "data"
FILES = sorted(path.name for path in DATA.iterdir() if path.suffix in (".keras", ".h5"))
# A weights file has no config and, before Keras 3.6, no layer names.
CLASS_NAMES = {
    "first_conv": "conv2d",
    "second_conv": "conv2d_1",
    "rows": "time_distributed",
    "memory": "lstm",
    "encoder/narrow": "sequential/dense",
    "decoder/narrow": "sequential_1/dense",
    "verdict": "dense",
}
NAMES_BY_FILE = {
    "keras_2_12.weights.h5": {
        **CLASS_NAMES,
        "second_conv": "conv2d_2",
        "decoder/narrow": "sequential_2/dense",
    },
    "keras_2_15.weights.h5": CLASS_NAMES,
    "tf_keras_2_21.weights.h5": CLASS_NAMES,
    "keras_3_0.weights.h5": CLASS_NAMES,
    "keras_3_3.weights.h5": CLASS_NAMES,
    "keras_3_0.h5": {"encoder/narrow": "encoder", "decoder/narrow": "decoder"},
}


def read_by_keras(name):
    """Returns the kernels of each layer, as the writer of the file read them."""
    writer = name.partition(".")[0].removesuffix("_weights")
    kernels = {}
    with np.load(DATA / f"{writer}.npz") as arrays:
        for numbered in sorted(arrays):
            layer = numbered.partition("#")[0]
            kernels.setdefault(layer, []).append(arrays[numbered])
    return kernels


@pytest.mark.parametrize("name", FILES)
def test_every_kernel_equals_the_one_that_the_writing_keras_read(name):
    names = NAMES_BY_FILE.get(name, {})
    expected = read_by_keras(name)
    with open_model_file(DATA / name) as model_file:
        for layer, arrays in expected.items():
            kernels = [
                kernel
                for kernel in model_file.kernels
                if kernel.name.startswith(f"{names.get(layer, layer)}/")
            ]
            for kernel, array in zip(kernels, arrays, strict=True):
                np.testing.assert_array_equal(kernel.read(), array)
        assert len(model_file.kernels) == sum(map(len, expected.values()))


@pytest.mark.parametrize(
    ("name", "named"), [("keras_3_3", False), ("keras_3_15", True)]
)
def test_only_files_of_newer_versions_name_their_layers(name, named):
    with h5py.File(DATA / f"{name}.weights.h5") as file:
        assert ("name" in file["layers/dense/vars"].attrs) == named
