"""Names of layers, from the weights file, the config or the path."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm.errors import UnsafeFileError
from keras_wm.files import Kernel, Limits, open_model_file, select
from keras_wm.files.config.layer_names import nodes_in_config
from keras_wm.files.config.nodes import name_of
from tests.files.written import (
    KERNEL,
    config_of,
    read_kernels,
    weights_bytes,
    write_archive,
    write_weights,
)
from tests.files.zip_by_hand import stored, write_members, zeros


def layers_of(path):
    """Returns the layer names of all kernels in a file."""
    with open_model_file(path) as model_file:
        return [kernel.layer for kernel in model_file.kernels]


def names_of(config, owners):
    """Returns the names that a config contains, by the paths of the objects."""
    nodes = nodes_in_config(config, owners)
    return {owner: name for owner, node in nodes.items() if (name := name_of(node))}


def unnamed_archive(path, config):
    return write_archive(path, weights_bytes(name=None), config)


def test_a_name_in_the_file_wins_over_the_config(tmp_path):
    path = write_archive(tmp_path / "a.keras", config=config_of(("Dense", "other")))
    assert layers_of(path) == ["c1"]


def test_a_name_in_the_config_wins_over_the_path(tmp_path):
    path = unnamed_archive(tmp_path / "a.keras", config_of(("Dense", "mine")))
    assert layers_of(path) == ["mine"]


def test_a_damaged_config_loses_only_the_names(tmp_path):
    for config in (
        None,
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 10**6,
        b"[]",
        b'{"config": {"layers": {"class_name": "Dense"}}}',
        b'{"config": {"layers": [null, 1, {"class_name": 2, "config": 3}]}}',
        b'{"config": {"layers": [{"class_name": "Dense", "config": {"name": [1]}}]}}',
        b"1" * 10_000,
    ):
        path = unnamed_archive(tmp_path / "a.keras", config)
        assert layers_of(path) == ["dense"]


def test_a_config_above_the_limit_is_refused(tmp_path):
    for write in (write_archive, unnamed_archive):
        path = write(tmp_path / "a.keras", config=b" " * 100)
        with (
            pytest.raises(UnsafeFileError, match=r"config\.json.*100 bytes.*the 10 "),
            open_model_file(path, Limits(config_bytes=10)),
        ):
            pass


def test_a_deflated_config_above_the_limit_is_refused_before_it_is_inflated(tmp_path):
    weights = stored("model.weights.h5", weights_bytes(name=None))
    path = write_members(tmp_path / "a.keras", weights, zeros("config.json", 20))
    with pytest.raises(UnsafeFileError, match=r"config\.json.*the 10,485,760 allowed"):
        layers_of(path)


def test_a_config_of_thousands_of_classes_names_the_first_ones():
    layers = [(f"Block{index}", f"b{index}") for index in range(2000)]
    config = json.loads(config_of(*layers))
    names = names_of(config, ["layers/block7", "layers/block1999"])
    assert names == {"": "m", "layers/block7": "b7"}


def test_operations_of_a_functional_model_are_not_counted_as_layers():
    add = {
        "class_name": "Add",
        "module": "keras.src.ops.numpy",
        "config": {"name": "o"},
    }
    layer = {"class_name": "Add", "module": "keras.layers", "config": {"name": "sum"}}
    names = names_of({"config": {"layers": [add, layer]}}, ["layers/add"])
    assert names == {"layers/add": "sum"}


@pytest.mark.parametrize("in_file", ["conv_lstm2d", "conv_lst_m2d"])
def test_class_names_are_found_as_keras_2_and_3_spell_them(in_file):
    config = json.loads(config_of(("ConvLSTM2D", "clouds")))
    owner = f"layers/{in_file}"
    assert names_of(config, [owner])[owner] == "clouds"


def test_a_class_name_may_end_in_a_number():
    config = json.loads(config_of(("Block_2", "last")))
    assert names_of(config, ["layers/block_2"])["layers/block_2"] == "last"


def test_lists_other_than_layers_are_followed():
    cells = [{"class_name": "LSTMCell", "config": {"name": name}} for name in "ab"]
    stack = {"class_name": "StackedRNNCells", "config": {"name": "s", "cells": cells}}
    rnn = {"class_name": "RNN", "config": {"name": "r", "cell": stack}}
    owners = ["layers/rnn", "layers/rnn/cell", "layers/rnn/cell/cells/lstm_cell_1"]
    names = names_of({"config": {"layers": [rnn]}}, owners)
    assert list(names.values()) == ["r", "s", "b"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["Dense", "vars", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "config", "layers", "name", "layer"]), inner
        )
    ),
    max_leaves=20,
)
owners = st.lists(st.sampled_from(["layers", "dense", "dense_1", "layer"]), max_size=5)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(json_values, st.lists(owners.map("/".join), unique=True, max_size=6))
def test_any_config_can_be_searched(config, paths):
    names = names_of(config, paths)
    assert names.keys() <= {*paths, ""}
    assert all(isinstance(name, str) for name in names.values())


def test_the_names_of_parents_precede_a_layer_and_those_of_lists_do_not(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        for owner, name in {"blocks/block": "body", "blocks/block/q": "query"}.items():
            file.create_group(f"{owner}/vars").attrs["name"] = name
        file["blocks/block/q/vars/0"] = KERNEL
    assert layers_of(path) == ["body/query"]


def test_an_invalid_name_attribute_is_ignored(tmp_path):
    for name in (5, ["a", "b"], np.array([b"a" * 5000] * 10), h5py.Empty("S1"), ""):
        path = write_weights(tmp_path / "a.weights.h5", name=name)
        assert layers_of(path) == ["dense"]


def test_a_name_of_fixed_length_is_read(tmp_path):
    path = write_weights(tmp_path / "a.weights.h5", name=np.bytes_(b"c2"))
    assert layers_of(path) == ["c2"]


@pytest.mark.parametrize("kind", [str, lambda text: np.bytes_(text.encode())])
def test_a_very_long_name_is_refused(tmp_path, kind):
    path = write_weights(tmp_path / "a.weights.h5", name=kind("a" * 2000))
    with pytest.raises(UnsafeFileError, match=r"/layers/dense/vars.*name_chars=1,0"):
        layers_of(path)


def test_names_cannot_steer_a_terminal(tmp_path):
    path = write_weights(tmp_path / "a.weights.h5", name="é\x1b[31m\n\u202e")
    assert layers_of(path) == ["é\\x1b[31m\\n\\u202e"]


def test_a_legacy_path_is_split_into_layer_and_variable(tmp_path):
    for path, name in (
        ("c1/c1/kernel:0", "c1/kernel"),
        ("c1/c1/kernel", "c1/kernel"),
        ("c1/c1_W", "c1/c1_W"),
        ("c1/c1_2/kernel:0", "c1/kernel"),
        ("c1/host/c1/kernel", "c1/kernel"),
        ("encoder/c1/kernel:0", "encoder/c1/kernel"),
        ("encoder/encoder/c1/kernel", "encoder/c1/kernel"),
        ("body/c1/body/c1/kernel:0", "body/c1/kernel"),
        ("both/both/forward_rnn/cell/kernel:0", "both/forward_rnn/cell/kernel"),
    ):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_group("model_weights").attrs["layer_names"] = [b"c1"]
            file[f"model_weights/{path}"] = KERNEL
            file["optimizer_weights/m"] = KERNEL
        assert list(read_kernels(tmp_path / "a.h5")) == [name]


def select_names(names, layer):
    """Returns the selected ones of kernels that have these names."""
    kernels = [
        Kernel(*name.rsplit("/", 1), "", (3, 3), "float32", lambda: np.zeros((3, 3)))
        for name in names
    ]
    return [kernel.name for kernel in select(kernels, layer, "a model")]


def test_a_name_selects_the_layer_and_the_layers_inside_it():
    names = [
        *("td/inner/kernel", "encoder/inner/kernel"),
        *("encoder/rnn/recurrent_kernel", "inner_2/kernel"),
    ]
    for layer, selected in {
        "td": ["td/inner/kernel"],
        "inner": ["td/inner/kernel", "encoder/inner/kernel"],
        "encoder/inner": ["encoder/inner/kernel"],
        "encoder": ["encoder/inner/kernel", "encoder/rnn/recurrent_kernel"],
        "rnn/recurrent_kernel": ["encoder/rnn/recurrent_kernel"],
    }.items():
        assert select_names(names, layer) == selected


def test_dots_and_slashes_are_equivalent_unless_a_name_matches_exactly():
    names = ["conv.1/kernel", "conv/kernel", "net.c1/weight", "body/c2/kernel"]
    for layer, selected in {
        "conv.1": "conv.1/kernel",
        "conv": "conv/kernel",
        "conv/1": "conv.1/kernel",
        "c1": "net.c1/weight",
        "net.c1": "net.c1/weight",
        "net/c1": "net.c1/weight",
        "net.c1.weight": "net.c1/weight",
        "body.c2": "body/c2/kernel",
        "net": "net.c1/weight",
    }.items():
        assert select_names(names, layer) == [selected]
