"""Small model files that are written without Keras, for tests to damage."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_wm.errors import UnsafeFileError
from keras_wm.files import open_model_file

KERNEL = np.arange(12, dtype="float32").reshape(3, 4)
DENSE = "layers/dense"
# Limits high enough for the file of `write_endless`.
PATIENT = {"config_bytes": 10**9, "json_values": 10**9}


def write_weights(path, kernel=KERNEL, name="c1", **storage):
    """Writes a weights file of Keras 3 with one kernel; returns its path."""
    with h5py.File(path, "w") as file:
        variables = file.create_group(f"{DENSE}/vars")
        if name is not None:
            variables.attrs["name"] = name
        variables.create_dataset("0", data=kernel, **storage)
    return path


def write_legacy(path):
    """Writes a legacy file of a whole model with one kernel; returns its path."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_group("model_weights").attrs["layer_names"] = [b"c1"]
        file["model_weights/c1/c1/kernel:0"] = KERNEL
        file["model_weights/c1"].attrs["weight_names"] = [b"c1/kernel:0"]
    return path


def weights_bytes(**options):
    """Returns the bytes of a weights file; see `write_weights`."""
    buffer = io.BytesIO()
    write_weights(buffer, **options)
    return buffer.getvalue()


def write_archive(path, weights=None, config=b"{}", method=zipfile.ZIP_STORED):
    """Writes an archive as Keras does; returns its path."""
    weights = weights_bytes() if weights is None else weights
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("metadata.json", b"{}")
        if config is not None:
            archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights)
    return path


def write_endless(path):
    """Writes an index that takes 8 s to read within `PATIENT`; returns its path."""
    path.write_text('{"weight_map": {"a": [' + '"a",' * 6_000_000 + '"a"]}}')
    return path


def write_quantized(path):
    """Writes layers in int8, in int4 with groups and in GPTQ; returns the path."""
    codes, scale = np.ones((4, 3), "int8"), np.ones(3, "float32")
    grouped = np.ones((2, 3), "float32")
    groups = np.array([0, 0, 1, 1], "float32")
    layers = {
        "dense": [codes, scale, scale],
        "dense_1": [np.ones((4, 2), "int8"), grouped, grouped.astype("i1"), groups],
        "dense_2": [
            np.ones((2, 4), "uint8"),
            grouped.T,
            grouped.T.astype("u1"),
            groups,
        ],
    }
    with h5py.File(path, "w") as file:
        for layer, arrays in layers.items():
            for number, array in enumerate(arrays):
                file[f"layers/{layer}/vars/{number}"] = array
    return path


def write_safetensors(path):
    """Writes arrays of several types and a quantized kernel; returns the path."""
    codes, scale = np.ones((3, 4), "int8"), np.ones(4, "float32")
    arrays = {"a.weight": KERNEL, "b/kernel": codes, "b/kernel_scale": scale}
    save_file({**arrays, "c.bias": scale.astype("float16")}, path)
    return path


def config_of(*layers):
    """Returns a `config.json`, as bytes, with layers given as class and name."""
    nodes = [{"class_name": kind, "config": {"name": name}} for kind, name in layers]
    config = {"class_name": "Functional", "config": {"name": "m", "layers": nodes}}
    return json.dumps(config).encode()


def read_kernels(path, **options):
    """Reads all kernels of a file; returns the arrays by name."""
    with open_model_file(path, **options) as model_file:
        return {kernel.name: kernel.read() for kernel in model_file.kernels}


def assert_refused(path, match, error=UnsafeFileError, **options):
    """Asserts that reading a file raises an error that names the file."""
    with pytest.raises(error, match=match) as caught:
        read_kernels(path, **options)
    assert str(path) in str(caught.value)
