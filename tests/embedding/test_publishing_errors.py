"""publish fails: the model and the target file are left unchanged."""

import zipfile
from pathlib import Path

import keras
import pytest

from keras_wm import publish
from tests.conftest import fixed_key
from tests.embedding.test_publishing import files, state
from tests.models import (
    MARKING_EPOCHS,
    dense_model,
    expected_ber,
    fit,
    fit_eagerly,
    kernel_of,
    mark,
)

pytestmark = pytest.mark.backends


@pytest.fixture(scope="module")
def trained():
    """A marked model with an optimizer that has a state. Tests must not change it."""
    model = dense_model(mark(fixed_key(), regularizer="l2"), "adam")
    fit_eagerly(model)
    return model


class DiskFullError(Exception):
    """The error of a disk that is full."""


@pytest.fixture
def full_disk(monkeypatch):
    """Lets `model.save` fail in the middle of its file."""

    def save(self, filepath, **arguments):
        Path(filepath).write_bytes(b"half of a")
        raise DiskFullError

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save)
        yield patch


def test_an_error_leaves_model_and_target_unchanged(trained, tmp_path, full_disk):
    path = tmp_path / "model.keras"
    path.write_bytes(b"a good file")
    before = state(trained)
    with pytest.raises(DiskFullError):
        publish(trained, path)
    assert state(trained) == before
    assert path.read_bytes() == b"a good file"
    assert files(tmp_path) == ["model.keras"]


def test_the_mark_is_still_trained_after_an_error(key, tmp_path, full_disk):
    model = dense_model(mark(key))
    with pytest.raises(DiskFullError):
        publish(model, tmp_path / "model.keras")
    fit(model, MARKING_EPOCHS)
    assert expected_ber(kernel_of(model), key) == 0


def test_a_target_that_cannot_be_written_leaves_the_model_unchanged(trained, tmp_path):
    before = state(trained)
    with pytest.raises(FileNotFoundError, match="no folder"):
        publish(trained, tmp_path / "nowhere" / "model.keras")
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(OSError, match=r"folder\.keras"):
        publish(trained, tmp_path / "folder.keras")
    assert state(trained) == before
    assert files(tmp_path) == ["folder.keras"]


def test_an_existing_file_is_kept_on_request(trained, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"a good file")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        publish(trained, path, overwrite=False)
    assert path.read_bytes() == b"a good file"
    assert files(tmp_path) == ["model.keras"]


def test_an_existing_file_is_replaced_by_default(trained, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"a good file")
    assert publish(trained, path) == path
    assert zipfile.is_zipfile(path)
    assert files(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("name", ["model", "model.pb", "model.hdf5", "model.npz"])
def test_another_suffix_is_refused(trained, tmp_path, name):
    with pytest.raises(ValueError, match=r"Expected a path ending in '\.keras'"):
        publish(trained, tmp_path / name)
    assert not files(tmp_path)


def test_an_object_that_is_not_a_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        publish("model.keras", tmp_path / "model.keras")


@keras.saving.register_keras_serializable(package="tests")
class Hiding(keras.layers.Dense):
    """A layer that holds its regularizer in a place that keras_wm does not know."""

    def __init__(self, units, hidden=None, **arguments):
        super().__init__(units, **arguments)
        self.hidden = {"regularizer": hidden}

    def get_config(self):
        return {**super().get_config(), "hidden": self.hidden["regularizer"]}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_regularizer_hidden_in_a_layers_config_is_refused(key, tmp_path, suffix):
    model = keras.Sequential([keras.Input((32,)), Hiding(64, mark(key), name="it")])
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"a good file")
    with pytest.raises(ValueError, match="would still mention 'WatermarkRegularizer'"):
        publish(model, path)
    assert path.read_bytes() == b"a good file"
    assert files(tmp_path) == [path.name]
