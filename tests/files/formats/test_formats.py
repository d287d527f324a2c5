"""Every format, written by the installed Keras."""

import shutil
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest

from keras_wm.files import Kernel, open_model_file
from tests.files.written import KERNEL, read_kernels, write_archive, write_weights

# The formats by the keys of `saved.files`.
FORMATS = {
    "archive": "Keras archive (.keras)",
    "weights": "Keras weights (.weights.h5)",
    "legacy": "legacy HDF5 (.h5)",
    "legacy weights": "legacy HDF5 weights (.h5)",
}


def read_by_layer(path):
    """Reads all kernels of a file; returns the arrays by layer."""
    with open_model_file(path) as model_file:
        return {kernel.layer: kernel.read() for kernel in model_file.kernels}


@pytest.mark.parametrize("key", FORMATS)
def test_each_kernel_is_read_under_the_name_of_its_layer(saved, key):
    kernels = read_by_layer(saved.files[key])
    assert kernels.keys() == saved.kernels.keys()
    for layer, kernel in saved.kernels.items():
        np.testing.assert_array_equal(kernels[layer], kernel)


@pytest.mark.parametrize("key", FORMATS)
def test_the_format_is_named(saved, key):
    with open_model_file(saved.files[key]) as model_file:
        assert model_file.format == FORMATS[key]


@pytest.mark.parametrize(("key", "variable"), [("archive", "0"), ("legacy", "kernel")])
def test_a_variable_has_the_name_that_the_file_gives(saved, key, variable):
    with open_model_file(saved.files[key]) as model_file:
        assert {kernel.variable for kernel in model_file.kernels} == {variable}


def test_the_content_decides_on_the_format_and_not_the_extension(saved, tmp_path):
    disguised = shutil.copy(saved.files["archive"], tmp_path / "model.h5")
    assert read_by_layer(disguised).keys() == saved.kernels.keys()


def test_a_deflated_archive_is_read(tmp_path):
    path = write_archive(tmp_path / "a.keras", method=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_kernels(path)["c1/0"], KERNEL)


def test_a_path_can_be_a_string(weights):
    for path in (weights, str(weights)):
        with open_model_file(path) as model_file:
            assert model_file.path == str(weights)


def test_a_kernel_has_a_path_a_name_and_a_type(weights):
    with open_model_file(weights) as model_file:
        (kernel,) = model_file.kernels
    assert isinstance(kernel, Kernel)
    assert (kernel.path, kernel.shape) == ("layers/dense/vars/0", (3, 4))
    assert (kernel.layer, kernel.variable, kernel.dtype) == ("c1", "0", "float32")


def test_floats_are_read_in_single_precision_at_least(tmp_path):
    for stored in ("<f2", ">f2", "<f4", ">f4", "<f8", ">f8"):
        path = write_weights(tmp_path / "a.h5", kernel=KERNEL.astype(stored))
        kernel = read_kernels(path)["c1/0"]
        assert kernel.dtype == ("float64" if stored.endswith("8") else "float32")
        np.testing.assert_array_equal(kernel, KERNEL)


def test_bfloat16_is_widened_exactly(tmp_path):
    import keras

    values = np.linspace(-3, 3, 12).reshape(3, 4)
    layer = keras.layers.Dense(4, name="half", dtype="bfloat16")
    model = keras.Sequential([keras.Input((3,), dtype="bfloat16"), layer])
    layer.kernel.assign(values)
    model.save_weights(tmp_path / "a.weights.h5")
    kernel = read_kernels(tmp_path / "a.weights.h5")["half/0"]
    assert kernel.dtype == np.float32
    expected = keras.ops.convert_to_numpy(keras.ops.cast(layer.kernel, "float32"))
    np.testing.assert_array_equal(kernel, expected)


def test_float8_is_widened_exactly(tmp_path):
    codes = np.arange(256, dtype="uint8").reshape(16, 16)
    for name, dtype in (
        # Keras on JAX writes opaque bytes, without the name of their type.
        (None, ml_dtypes.float8_e4m3fn),
        ("float8_e4m3fn", ml_dtypes.float8_e4m3fn),
        ("float8_e5m2", ml_dtypes.float8_e5m2),
    ):
        path = write_weights(tmp_path / "a.h5", codes.view("V1"))
        if name is not None:
            with h5py.File(path, "r+") as file:
                file["layers/dense/vars/0"].attrs["dtype"] = name
        expected = codes.view(dtype).astype("float32")
        np.testing.assert_array_equal(read_kernels(path)["c1/0"], expected)


def test_other_arrays_are_not_kernels(tmp_path):
    for array in (
        np.ones((3, 4), "int8"),
        np.ones(4, "float32"),
        np.float32(1),
        np.ones((3, 4), "complex64"),
        np.ones((3, 4), "V2"),
        np.ones((3, 4), [("a", "f4"), ("b", "f4")]),
        np.array([[b"a", b"b"]]),
        np.ones((0, 4), "float32"),
        h5py.Empty("float32"),
    ):
        path = write_weights(tmp_path / "a.h5")
        with h5py.File(path, "r+") as file:
            file["layers/dense/vars/1"] = array
        assert read_kernels(path).keys() == {"c1/0"}


def test_arrays_of_objects_are_not_kernels(weights):
    dtypes = (h5py.string_dtype(), h5py.ref_dtype, h5py.vlen_dtype("f4"))
    with h5py.File(weights, "r+") as file:
        for number, dtype in enumerate(dtypes, 1):
            file.create_dataset(f"layers/dense/vars/{number}", (3, 4), dtype)
    assert read_kernels(weights).keys() == {"c1/0"}


def test_the_state_of_optimizers_and_metrics_is_not_a_kernel(weights):
    with h5py.File(weights, "r+") as file:
        for owner in ("optimizer", "d_optimizer", "metrics/mean_io_u"):
            file[f"{owner}/vars/2"] = KERNEL
    assert read_kernels(weights).keys() == {"c1/0"}


def test_a_layer_of_a_class_named_metrics_is_a_layer(weights):
    with h5py.File(weights, "r+") as file:
        file["layers/metrics/vars/0"] = KERNEL
    assert read_kernels(weights).keys() == {"c1/0", "metrics/0"}


def test_a_repacked_array_is_read_as_h5py_reads_it(tmp_path):
    for storage in (
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (2, 3)},
        {"chunks": (2, 3), "maxshape": (None, None), "compression": "gzip"},
        {"chunks": (40, 30), "maxshape": (None, None), "shuffle": True},
    ):
        path = write_weights(tmp_path / "a.h5", **storage)
        np.testing.assert_array_equal(read_kernels(path)["c1/0"], KERNEL)


def test_a_kernel_cannot_be_read_after_the_file_is_closed(weights):
    with open_model_file(weights) as model_file:
        (kernel,) = model_file.kernels
    with pytest.raises(ValueError, match="only while its file is open"):
        kernel.read()


def test_an_error_of_the_caller_does_not_name_the_file(weights):
    with pytest.raises(ZeroDivisionError), open_model_file(weights):
        raise ZeroDivisionError
