"""Folders that are one model: unzipped `.keras` files and presets."""

import json
import os
import shutil
import zipfile

import fsspec
import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_wm.errors import ModelFileError, UnsupportedFileError
from keras_wm.files import is_model_folder, open_model_file, select
from tests.files.written import (
    KERNEL,
    assert_refused,
    config_of,
    read_kernels,
    write_archive,
    write_weights,
)


@pytest.fixture(scope="module")
def unzipped(tmp_path_factory):
    """A model that Keras saved as a folder, and its kernel."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="c1")])
    folder = tmp_path_factory.mktemp("unzipped") / "model"
    model.save(folder, zipped=False)
    return folder, np.asarray(model.get_layer("c1").kernel)


@pytest.fixture
def preset(tmp_path):
    """A preset of KerasHub with the weights of a task."""
    for name in ("config.json", "task.json", "metadata.json", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "assets" / "tokenizer").mkdir(parents=True)
    write_weights(tmp_path / "model.weights.h5", name="encoder")
    write_weights(tmp_path / "task.weights.h5", kernel=KERNEL + 1, name="logits")
    return tmp_path


@pytest.fixture(scope="module")
def written_preset(tmp_path_factory):
    """A preset, written with the same calls as in KerasHub, and its kernels."""
    import keras
    from keras.src.saving.saving_lib import save_weights_only

    layers = keras.layers
    encoder = [keras.Input((3,)), layers.Dense(4, name="inner")]
    backbone = keras.Sequential(encoder, name="backbone")
    head = layers.Dense(2, name="logits")
    task = keras.Sequential([keras.Input((3,)), backbone, head], name="classifier")
    folder = tmp_path_factory.mktemp("preset")
    for model, name in ((backbone, "config.json"), (task, "task.json")):
        config = keras.saving.serialize_keras_object(model)
        (folder / name).write_text(json.dumps(config))
    backbone.save_weights(folder / "model.weights.h5")
    head_only = folder / "task.weights.h5"
    save_weights_only(task, head_only, objects_to_skip=[backbone])
    inner = backbone.get_layer("inner")
    return folder, {
        "inner/0": np.asarray(inner.kernel),
        "logits/0": np.asarray(head.kernel),
    }


def test_an_unzipped_model_is_read(unzipped):
    folder, kernel = unzipped
    np.testing.assert_array_equal(read_kernels(folder)["c1/0"], kernel)


def test_the_format_names_the_weights(unzipped, preset):
    with open_model_file(unzipped[0]) as file, open_model_file(preset) as other:
        assert file.format == "model folder (model.weights.h5)"
        assert other.format == "model folder (model.weights.h5, task.weights.h5)"


def test_an_unzipped_model_is_read_by_url(unzipped):
    memory = fsspec.filesystem("memory")
    memory.put(str(unzipped[0]), "/models/m", recursive=True)
    found = read_kernels("memory://models/m")
    memory.rm("/models", recursive=True)
    np.testing.assert_array_equal(found["c1/0"], unzipped[1])


def test_unnamed_layers_get_their_names_from_the_config(tmp_path):
    write_weights(tmp_path / "model.weights.h5", name=None)
    assert read_kernels(tmp_path).keys() == {"dense/0"}
    (tmp_path / "config.json").write_bytes(config_of(("Dense", "mine")))
    assert read_kernels(tmp_path).keys() == {"mine/0"}


def test_a_task_and_its_model_are_both_read(preset):
    found = read_kernels(preset)
    assert found.keys() == {"encoder/0", "logits/0"}
    np.testing.assert_array_equal(found["logits/0"], KERNEL + 1)


def test_a_preset_is_read_as_kerashub_writes_it(written_preset):
    folder, kernels = written_preset
    found = read_kernels(folder)
    assert found.keys() == kernels.keys()
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(found[name], kernel)


def test_unnamed_layers_of_a_task_get_their_names_from_its_own_config(preset):
    write_weights(preset / "task.weights.h5", name=None)
    (preset / "config.json").write_bytes(config_of(("Dense", "wrong")))
    (preset / "task.json").write_bytes(config_of(("Dense", "logits")))
    assert read_kernels(preset).keys() == {"encoder/0", "logits/0"}


def test_equal_names_in_two_files_are_made_unique(preset):
    write_weights(preset / "task.weights.h5", kernel=KERNEL + 1, name="encoder")
    with open_model_file(preset) as file:
        names = [kernel.name for kernel in file.kernels]
        (chosen,) = select(file.kernels, "task.weights.h5/encoder", "it")
        np.testing.assert_array_equal(chosen.read(), KERNEL + 1)
        assert len(select(file.kernels, "encoder", "it")) == 2
    assert names == ["model.weights.h5/encoder/0", "task.weights.h5/encoder/0"]


def test_a_preset_with_sharded_weights_is_read(preset):
    (preset / "model.weights.h5").rename(preset / "model_00000.weights.h5")
    index = {"weight_map": {"/layers/dense/vars": "model_00000.weights.h5"}}
    (preset / "model.weights.json").write_text(json.dumps(index))
    assert read_kernels(preset).keys() == {"encoder/0", "logits/0"}


def test_a_folder_of_the_hugging_face_hub_is_read(tmp_path):
    (tmp_path / "config.json").write_bytes(b"{}")
    save_file({"a.weight": KERNEL}, tmp_path / "model.safetensors")
    with open_model_file(tmp_path) as file:
        assert file.format == "model folder (model.safetensors)"
        assert [kernel.name for kernel in file.kernels] == ["a/weight", "a/weight"]


def test_a_symbolic_link_in_a_folder_is_followed(preset, tmp_path_factory):
    # A snapshot in the Hugging Face cache consists of symbolic links.
    blob = tmp_path_factory.mktemp("blobs") / "5f3a"
    (preset / "model.weights.h5").rename(blob)
    (preset / "model.weights.h5").symlink_to(blob)
    assert read_kernels(preset).keys() == {"encoder/0", "logits/0"}


def test_a_hostile_file_in_a_folder_is_named(preset):
    with h5py.File(preset / "task.weights.h5", "r+") as file:
        file["layers/dense/vars/1"] = h5py.SoftLink("/layers")
    assert_refused(preset, "task.weights.h5: 'layers/dense/vars/1' is a soft link")


def test_a_pipe_in_a_folder_is_refused_without_waiting(preset):
    (preset / "task.weights.h5").unlink()
    os.mkfifo(preset / "task.weights.h5")
    assert_refused(preset, "task.weights.h5: not a regular file")


def test_a_folder_in_place_of_a_file_is_an_error(preset):
    (preset / "task.weights.h5").unlink()
    (preset / "task.weights.h5").mkdir()
    assert_refused(preset, "task.weights.h5: it is a folder", UnsupportedFileError)


def test_an_unrecognised_file_in_a_folder_is_named(preset):
    (preset / "task.weights.h5").write_bytes(b"version https://git-lfs.github.com")
    match = "task.weights.h5: not a Keras model file: it is a Git LFS pointer"
    assert_refused(preset, match, UnsupportedFileError)


def test_a_model_without_weights_has_no_kernels(tmp_path):
    h5py.File(tmp_path / "model.weights.h5", "w").close()
    assert read_kernels(tmp_path) == {}


def test_a_zipped_preset_is_read(preset, tmp_path_factory):
    path = tmp_path_factory.mktemp("zipped") / "preset"
    zipped = shutil.make_archive(str(path), "zip", preset)
    assert read_kernels(zipped).keys() == {"encoder/0", "logits/0"}


def test_a_shard_in_the_same_archive_is_read(tmp_path):
    path = write_archive(tmp_path / "a.keras")
    index = {"metadata": {}, "weight_map": {"/layers/dense/vars": "shard.h5"}}
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(tmp_path / "b", "w") as target,
    ):
        target.writestr("model.weights.json", json.dumps(index))
        target.writestr("shard.h5", source.read("model.weights.h5"))
    assert read_kernels(tmp_path / "b").keys() == {"c1/0"}


def test_a_missing_shard_in_an_archive_is_named(tmp_path):
    index = {"metadata": {}, "weight_map": {"/layers/dense/vars": "shard.h5"}}
    with zipfile.ZipFile(tmp_path / "b", "w") as target:
        target.writestr("model.weights.json", json.dumps(index))
    assert_refused(tmp_path / "b", "there is no member 'shard.h5'", ModelFileError)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "metadata.json", "model.weights.h5"], True),
        (["config.json", "model.weights.json", "model_00000.weights.h5"], True),
        (["config.json", "model.safetensors"], True),
        (["config.json", "model.safetensors.index.json"], True),
        (["config.json", "task.weights.h5", "task.json"], True),
        # A folder of several models; a user named one of them `model`.
        (["model.weights.h5", "other.weights.h5"], False),
        (["config.json", "a.keras"], False),
        ([], False),
    ],
)
def test_a_model_folder_is_recognised_by_its_names(names, expected):
    assert is_model_folder(names) is expected
