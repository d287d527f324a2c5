"""A mark is found in renamed, wrapped, converted and transposed layers."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import keras_wm
from keras_wm.files import open_model_file
from tests.marked_model import LAYER
from tests.models import most_bits


def weights_of(model):
    """The arrays of a model, by the names that PyTorch would use."""
    names = {"kernel": "weight", "bias": "bias"}
    return {
        f"net.{layer.name}.{names[weight.path.rpartition('/')[2]]}": np.asarray(weight)
        for layer in model.layers
        for weight in layer.weights
    }


def as_pytorch_orders(array):
    """Returns an array with its filters first: (L, D, S, S), or (L, D)."""
    if array.ndim < 2:
        return array
    axes = (array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
    return np.ascontiguousarray(array.transpose(axes))


def renamed(marked):
    """The marked model with other names, inside another model."""
    import keras

    def clone(layer):
        config = layer.get_config() | {"name": f"x_{layer.name}"}
        config.pop("kernel_regularizer", None)
        return type(layer).from_config(config)

    inner = keras.models.clone_model(marked.model, clone_function=clone)
    inner.set_weights(marked.model.get_weights())
    inputs = keras.Input((2, 8, 8, 1))
    outputs = keras.layers.TimeDistributed(inner, name="each")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(outputs), name="other")


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_a_mark_is_found_in_layers_that_were_renamed_and_wrapped(
    marked, tmp_path, suffix
):
    model = renamed(marked)
    path = tmp_path / f"model{suffix}"
    model.save_weights(path) if suffix == ".weights.h5" else model.save(path)
    found = keras_wm.verify(path, marked.key)
    assert (found.verdict, found.ber) == ("proven", 0.0)
    assert LAYER not in found.layer.split("/")


def test_a_mark_is_found_in_a_safetensors_file_of_keras(marked, tmp_path):
    arrays = {weight.path: np.asarray(weight) for weight in marked.model.weights}
    save_file(arrays, tmp_path / "model.safetensors")
    found = keras_wm.verify(tmp_path / "model.safetensors", marked.key)
    assert (found.verdict, found.layer) == ("proven", f"host/{LAYER}/kernel")
    assert found.finding.kernel_note == ""


def test_a_mark_is_found_with_its_axes_in_the_order_of_pytorch(marked, tmp_path):
    arrays = weights_of(marked.model)
    transposed = {name: as_pytorch_orders(array) for name, array in arrays.items()}
    save_file(transposed, tmp_path / "model.safetensors")
    found = keras_wm.verify(tmp_path / "model.safetensors", marked.key)
    assert (found.verdict, found.ber) == ("proven", 0.0)
    assert found.layer == f"net.{LAYER}/weight"
    assert "axes as PyTorch orders them" in repr(found)
    expected = keras_wm.verify(marked.model, marked.key, LAYER)
    np.testing.assert_allclose(found.z, expected.z)


def test_every_order_of_the_axes_counts_as_a_test(marked, tmp_path):
    path = tmp_path / "model.safetensors"
    arrays = weights_of(marked.model)
    save_file({n: as_pytorch_orders(a) for n, a in arrays.items()}, path)
    with open_model_file(path) as model_file:
        shapes = [kernel.shape for kernel in model_file.kernels]
    fitting = [shape for shape in shapes if marked.key.bits <= most_bits(shape)]
    found = keras_wm.verify(path, marked.key)
    assert found.tried == len(fitting) > 3
    named = keras_wm.verify(path, marked.key, f"net.{LAYER}")
    assert named.tried == 2
    assert found.finding.counted == named.finding.counted == len(fitting)
    alone = found.detection.log10_p
    assert found.log10_p == pytest.approx(alone + np.log10(len(fitting)))


def test_a_dense_kernel_is_found_transposed(marked, tmp_path):
    kernel = np.asarray(marked.model.get_layer(LAYER).kernel).reshape(-1, 32)
    weights = {"fc.weight": np.ascontiguousarray(kernel.T), "fc.bias": np.ones(32)}
    save_file(weights, tmp_path / "model.safetensors")
    found = keras_wm.verify(tmp_path / "model.safetensors", marked.key, "fc")
    assert (found.verdict, found.tried) == ("proven", 2)
