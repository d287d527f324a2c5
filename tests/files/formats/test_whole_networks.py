"""Weights of all layers, and the config of the model, which an alignment needs."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files import Limits, Sandbox, open_model, open_model_file
from tests.files.written import (
    config_of,
    write_archive,
    write_legacy,
    write_weights,
)

SUFFIXES = (".keras", ".h5", ".weights.h5")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network with every kind of weight that an alignment uses, and its files."""
    import keras

    from tests.research.attacks.networks import separated, with_weights

    inputs = keras.Input((8, 8, 3))
    inner = separated()
    inner.name = "inner"
    x = keras.layers.BatchNormalization(scale=False, name="outer")(inputs)
    model = with_weights(keras.Model(inputs, inner(x), name="host"))
    folder = tmp_path_factory.mktemp("network")
    files = {suffix: folder / f"a{suffix}" for suffix in SUFFIXES}
    for suffix in (".keras", ".h5"):
        model.save(files[suffix])
    model.save_weights(files[".weights.h5"])
    return model, files


def expected_arrays(model, prefix=""):
    """Returns the arrays of each layer, by its name, in Keras's order."""
    arrays = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            arrays |= expected_arrays(layer, f"{layer.name}/")
        elif layer.weights:
            arrays[prefix + layer.name] = [np.asarray(array) for array in layer.weights]
    return arrays


@pytest.mark.parametrize("source", [*SUFFIXES, "memory"])
def test_every_weight_of_every_layer_is_listed_and_read(network, source):
    model, files = network
    with open_model(files.get(source, model)) as opened:
        arrays = {}
        for weight in opened.weights:
            arrays.setdefault(weight.layer, []).append(weight.read())
            assert weight.read().shape == weight.shape
    expected = expected_arrays(model)
    assert arrays.keys() == expected.keys()
    for layer, expected_in_layer in expected.items():
        # A legacy file stores them in the order of their names.
        contents = {array.tobytes() for array in map(np.float32, arrays[layer])}
        assert contents == {array.tobytes() for array in expected_in_layer}
        if source != ".h5":
            for array, expected_array in zip(
                arrays[layer], expected_in_layer, strict=True
            ):
                np.testing.assert_array_equal(array, expected_array)


def test_an_unzipped_archive_has_the_same_weights_and_config(network, tmp_path):
    _, files = network
    with zipfile.ZipFile(files[".keras"]) as archive:
        archive.extractall(tmp_path)
    with (
        open_model_file(files[".keras"]) as zipped,
        open_model_file(tmp_path) as unzipped,
    ):
        names = [weight.name for weight in zipped.weights]
        assert names == [weight.name for weight in unzipped.weights]
        assert zipped.config() == unzipped.config() is not None


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_config_is_read_as_plain_data_also_in_a_sandbox(network, suffix):
    model, files = network
    names = [layer.name for layer in model.layers]
    with Sandbox() as sandbox:
        for opened in (
            open_model_file(files[suffix]),
            sandbox.open_model_file(files[suffix]),
        ):
            with opened as model_file:
                nodes = model_file.config()["config"]["layers"]
                assert [node["config"]["name"] for node in nodes] == names


def test_weights_alone_have_no_config(network, weights):
    _, files = network
    for path in (files[".weights.h5"], weights):
        with open_model_file(path) as model_file:
            assert model_file.config() is None


@pytest.mark.parametrize("config", [None, b"", b"{", b"[" * 10**6, b'{"a": 1, "a": 2}'])
def test_a_damaged_config_is_none(tmp_path, config):
    path = write_archive(tmp_path / "a.keras", config=config)
    with open_model_file(path) as model_file:
        assert model_file.config() is None


def test_a_deeply_nested_config_does_not_end_the_sandbox(tmp_path):
    with Sandbox() as sandbox:
        for depth in (100, 300, 500, 900, 990, 1000):
            config = b"[" * depth + b"]" * depth
            path = write_archive(tmp_path / "a.keras", config=config)
            with sandbox.open_model_file(path) as model_file:
                read = model_file.config()
                assert read is None or json.dumps(read).encode() == config
                assert len(model_file.kernels[0].read())


def test_a_config_of_a_legacy_file_above_the_limit_is_refused_when_read(tmp_path):
    path = write_legacy(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = " " * 100
    match = r"a\.h5: .*'model_config'.*Limits\.config_bytes=20"
    with open_model_file(path, Limits(config_bytes=20)) as model_file:
        with pytest.raises(UnsafeFileError, match=match):
            model_file.config()
        assert len(model_file.kernels[0].read())


def test_the_config_of_a_legacy_file_is_read_within_the_listing_budget(tmp_path):
    path = write_legacy(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = " " * 10**6
    with (
        open_model_file(path, Limits(listing_bytes=100_000)) as model_file,
        pytest.raises(UnsafeFileError, match=r"Limits\.listing_bytes=100,000"),
    ):
        model_file.config()


def test_a_config_is_read_only_while_its_file_is_open(tmp_path):
    path = write_archive(tmp_path / "a.keras", config=config_of(("Dense", "c1")))
    with Sandbox() as sandbox:
        for opened in (open_model_file(path), sandbox.open_model_file(path)):
            with opened as model_file:
                pass
            with pytest.raises(ModelFileError, match=r"a\.keras"):
                model_file.config()


def test_arrays_of_one_axis_are_weights_but_not_kernels(tmp_path):
    path = tmp_path / "a.weights.h5"
    write_weights(path)
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/1"] = np.ones(4, "float32")
    with open_model_file(path) as model_file:
        assert [weight.name for weight in model_file.weights] == ["c1/0", "c1/1"]
        assert [kernel.name for kernel in model_file.kernels] == ["c1/0"]
