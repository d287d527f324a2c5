"""Models whose weights are split into several files."""

import json
import shutil

import fsspec
import h5py
import numpy as np
import pytest

from keras_wm.errors import ModelFileError, UnsupportedFileError
from keras_wm.files import Limits, open_model_file, shards_of
from tests.files.written import KERNEL, assert_refused, read_kernels, write_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model's weights in one file, and in shards."""
    import keras

    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("sharded")
    layers = keras.layers
    encoder = [keras.Input((40,)), layers.Dense(60, name="narrow")]
    host = keras.Sequential(
        [
            keras.Input((40,)),
            layers.Dense(40, name="first"),
            keras.Sequential(encoder, name="encoder"),
            layers.Dense(30, name="last"),
        ]
    )
    host.save_weights(folder / "whole.weights.h5")
    # 12 kB, in gigabytes: the bias of a layer is not in the shard of its kernel.
    host.save_weights(folder / "m.weights.json", max_shard_size=12e3 / 1024**3)
    return folder


@pytest.fixture
def folder(model, tmp_path):
    """A copy of `model` that a test can damage."""
    return shutil.copytree(model, tmp_path / "copy")


@pytest.fixture
def two(tmp_path):
    """The path of an index of two shards with one kernel each."""
    for index, layer in enumerate(("first", "second")):
        path = write_weights(tmp_path / f"m_{index}.h5", name=layer)
        with h5py.File(path, "r+") as file:
            file.move("layers/dense", f"layers/{layer}")
    return write_index(tmp_path, ["m_0.h5", "m_1.h5"])


def write_index(folder, shards):
    """Writes an index of shards; returns its path."""
    weights = {f"/layers/dense_{i}/vars": name for i, name in enumerate(shards)}
    index = {"metadata": {"total_size": 1}, "weight_map": weights}
    (folder / "m.weights.json").write_text(json.dumps(index))
    return folder / "m.weights.json"


def test_shards_have_the_same_kernels_as_one_file(model):
    sharded = read_kernels(model / "m.weights.json")
    whole = read_kernels(model / "whole.weights.h5")
    assert len(list(model.glob("m_*.weights.h5"))) > 2
    assert sharded.keys() == whole.keys()
    for name, kernel in whole.items():
        np.testing.assert_array_equal(sharded[name], kernel)


def test_the_format_is_named(model):
    with open_model_file(model / "m.weights.json") as file:
        assert file.format == "sharded Keras weights (.weights.json)"


def test_the_path_of_a_kernel_names_its_shard(two):
    with open_model_file(two) as file:
        paths = [kernel.path for kernel in file.kernels]
    assert paths == ["m_0.h5/layers/first/vars/0", "m_1.h5/layers/second/vars/0"]


def test_a_layer_gets_its_name_from_any_of_its_shards(two):
    with h5py.File(two.with_name("m_0.h5"), "r+") as file:
        file.create_group("layers/second/vars")
    assert read_kernels(two).keys() == {"first/0", "second/0"}
    with h5py.File(two.with_name("m_1.h5"), "r+") as file:
        del file["layers/second/vars"].attrs["name"]
    with h5py.File(two.with_name("m_0.h5"), "r+") as file:
        file["layers/second/vars"].attrs["name"] = "mine"
    assert read_kernels(two).keys() == {"first/0", "mine/0"}


def test_a_group_can_be_listed_in_several_shards(two):
    index = json.loads(two.read_text())
    index["weight_map"] = {"/layers/dense/vars": ["m_0.h5", "m_1.h5"]}
    two.write_text(json.dumps(index))
    assert read_kernels(two).keys() == {"first/0", "second/0"}


def test_shards_are_read_by_url(model):
    memory = fsspec.filesystem("memory")
    for path in model.iterdir():
        memory.pipe(f"/models/{path.name}", path.read_bytes())
    found = read_kernels("memory://models/m.weights.json")
    memory.rm("/models", recursive=True)
    assert found.keys() == read_kernels(model / "m.weights.json").keys()


def test_an_index_is_recognised_by_its_content(two):
    assert read_kernels(two.rename(two.with_name("odd.keras")))


def test_the_shards_of_an_index_are_listed(model):
    shards = {path.name for path in model.glob("m_*.weights.h5")}
    assert shards_of(model / "m.weights.json") == shards


def test_a_file_that_is_not_an_index_has_no_shards(model, tmp_path):
    (tmp_path / "a.json").write_text('{"metadata": {}}')
    assert not shards_of(tmp_path / "a.json")
    assert not shards_of(model / "whole.weights.h5")
    assert not shards_of(tmp_path)


def test_a_missing_shard_is_named(folder):
    (folder / "m_00001.weights.h5").unlink()
    match = "m_00001.weights.h5: there is no such file"
    assert_refused(folder / "m.weights.json", match, ModelFileError)


def test_a_shard_outside_the_folder_of_its_index_is_refused(two):
    for name in (
        "../outside.h5",
        "..",
        ".",
        "",
        "/etc/passwd",
        "deeper/a.h5",
        "deeper\\a.h5",
        "C:a.h5",
        "a\0.h5",
        "a" * 2000,
        "https://example.com/a.h5",
        5,
        None,
        {"a": "b"},
        [["a.h5"]],
    ):
        path = write_index(two.parent, [name])
        assert_refused(path, "not the name of a file in the folder of the index")


def test_too_many_shards_are_refused(two):
    match = r"2 shards, more than Limits.shards=1"
    assert_refused(two, match, limits=Limits(shards=1))


def test_too_many_objects_in_all_shards_together_are_refused(two):
    match = "m_1.h5: the shards have more objects together than Limits.objects=6"
    assert_refused(two, match, limits=Limits(objects=6))


def test_an_index_above_the_limit_is_refused(two):
    match = "more than Limits.config_bytes=20"
    assert_refused(two, match, limits=Limits(config_bytes=20))


def test_a_damaged_index_is_an_error(two):
    two.write_bytes(two.read_bytes()[:-5])
    assert_refused(two, "should be JSON, and is not", ModelFileError)


def test_an_array_in_two_shards_is_refused(two):
    shutil.copy(two.with_name("m_0.h5"), two.with_name("m_1.h5"))
    assert_refused(two, "m_1.h5: 'layers/first/vars/0' is in another shard, too")


def test_a_hostile_shard_is_named(two):
    with h5py.File(two.with_name("m_1.h5"), "r+") as file:
        file["layers/second/vars/1"] = h5py.ExternalLink("other.h5", "/")
    assert_refused(two, "m_1.h5: 'layers/second/vars/1' is an external link")


def test_an_unrecognised_shard_is_named(two):
    two.with_name("m_1.h5").write_bytes(b"\x80\x02.")
    match = "m_1.h5: not a Keras model file: it is a pickle"
    assert_refused(two, match, UnsupportedFileError)


def test_an_index_cannot_be_its_own_shard(two):
    path = write_index(two.parent, ["m.weights.json"])
    assert_refused(path, "m.weights.json: not a Keras model", UnsupportedFileError)


def test_a_folder_as_a_shard_is_an_error(two):
    (two.parent / "m_2.h5").mkdir()
    path = write_index(two.parent, ["m_2.h5"])
    assert_refused(path, "m_2.h5: it is a folder", UnsupportedFileError)


def test_shards_of_two_kinds_are_an_error(two):
    from safetensors.numpy import save_file

    save_file({"c.weight": KERNEL}, two.with_name("m_1.h5"))
    assert_refused(two, "some of its shards are HDF5 files", ModelFileError)


@pytest.fixture
def hub(tmp_path):
    """The path of an index of safetensors files, as on the Hugging Face Hub."""
    from safetensors.numpy import save_file

    shards = {}
    for index, layer in enumerate(("a", "b")):
        name = f"model-{index}.safetensors"
        save_file({f"{layer}.weight": KERNEL + index}, tmp_path / name)
        shards[f"{layer}.weight"] = name
    index = {"metadata": {"total_size": 1}, "weight_map": shards}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    return path


def test_safetensors_shards_are_read(hub):
    with open_model_file(hub) as file:
        kernels = {k.name: k.read() for k in file.kernels if not k.note}
        paths = [kernel.path for kernel in file.kernels]
    assert kernels.keys() == {"a/weight", "b/weight"}
    np.testing.assert_array_equal(kernels["b/weight"], KERNEL + 1)
    assert paths[-1] == "model-1.safetensors/b.weight"


def test_an_array_in_two_safetensors_shards_is_refused(hub):
    shards = [hub.with_name(f"model-{index}.safetensors") for index in range(2)]
    shutil.copy(*shards)
    assert_refused(hub, "model-1.safetensors: array 'a.weight' is in another shard")


def test_too_many_arrays_in_all_shards_together_are_refused(hub):
    match = "model-1.safetensors: the shards have more arrays together"
    assert_refused(hub, match, limits=Limits(arrays=1))
