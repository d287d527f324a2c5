"""What an alignment needs beside kernels: all weights of the layers, and the config."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files import Limits, Sandbox, open_model_file
from keras_wm.files.model_file import open_model
from tests.files.written import (
    config_of,
    weights_bytes,
    write_archive,
    write_legacy,
    write_weights,
)

SUFFIXES = (".keras", ".h5", ".weights.h5")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network with every kind of weight that an alignment looks at, and its files."""
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
    """By layer, all arrays in Keras's own order."""
    found = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found |= expected_arrays(layer, f"{layer.name}/")
        elif layer.weights:
            found[prefix + layer.name] = [np.asarray(one) for one in layer.weights]
    return found


@pytest.mark.parametrize("source", [*SUFFIXES, "memory"])
def test_every_weight_of_every_layer_is_listed_and_read(network, source):
    model, files = network
    with open_model(files.get(source, model)) as opened:
        found = {}
        for one in opened.weights:
            found.setdefault(one.layer, []).append(one.read())
            assert one.read().shape == one.shape
    expected = expected_arrays(model)
    assert found.keys() == expected.keys()
    for layer, arrays in expected.items():
        # A legacy file has them in the order of their names.
        every = {array.tobytes() for array in map(np.float32, found[layer])}
        assert every == {array.tobytes() for array in arrays}
        if source != ".h5":
            for one, array in zip(found[layer], arrays, strict=True):
                np.testing.assert_array_equal(one, array)


def test_an_archive_unzipped_has_the_same_weights_and_config(network, tmp_path):
    _, files = network
    with zipfile.ZipFile(files[".keras"]) as archive:
        archive.extractall(tmp_path)
    with open_model_file(files[".keras"]) as one, open_model_file(tmp_path) as other:
        assert [each.name for each in one.weights] == [
            each.name for each in other.weights
        ]
        assert one.config() == other.config() is not None


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
def test_a_config_that_is_damaged_is_none(tmp_path, config):
    path = write_archive(tmp_path / "a.keras", config=config)
    with open_model_file(path) as model_file:
        assert model_file.config() is None


def test_a_config_nested_too_deep_to_be_sent_costs_no_sandbox(tmp_path):
    with Sandbox() as sandbox:
        for depth in (100, 300, 500, 900, 990, 1000):
            config = b"[" * depth + b"]" * depth
            path = write_archive(tmp_path / "a.keras", config=config)
            with sandbox.open_model_file(path) as model_file:
                read = model_file.config()
                assert read is None or json.dumps(read).encode() == config
                assert len(model_file.kernels[0].read())


def test_a_config_above_the_limit_is_refused_when_it_is_asked_for(tmp_path):
    path = write_archive(tmp_path / "a.keras", config=b" " * 100)
    legacy = write_legacy(tmp_path / "a.h5")
    with h5py.File(legacy, "a") as file:
        file.attrs["model_config"] = " " * 100
    for large, complaint in (
        (path, r"a\.keras: 'config\.json' has 100 bytes.*the 20 allowed"),
        (legacy, r"a\.h5: .*'model_config'.*Limits\.config_bytes=20"),
    ):
        with open_model_file(large, Limits(config_bytes=20)) as model_file:
            with pytest.raises(UnsafeFileError, match=complaint):
                model_file.config()
            assert len(model_file.kernels[0].read())


def test_a_config_of_a_legacy_file_cannot_make_hdf5_read_without_end(tmp_path):
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


def test_arrays_of_one_axis_are_no_kernels(tmp_path):
    path = tmp_path / "a.weights.h5"
    write_weights(path)
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/1"] = np.ones(4, "float32")
    with open_model_file(path) as model_file:
        assert [one.name for one in model_file.weights] == ["c1/0", "c1/1"]
        assert [one.name for one in model_file.kernels] == ["c1/0"]


def test_weights_are_listed_without_reading_the_config(tmp_path):
    path = write_archive(tmp_path / "a.keras", weights_bytes(), b" " * 100)
    with open_model_file(path, Limits(config_bytes=10)) as model_file:
        assert len(model_file.weights) == 1
