"""Arrays in a file that the model does not compute with.

Each forged file is loaded by Keras, and computes the same as before.
"""

import contextlib
import copy
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from keras_wm.files import open_model, open_model_file
from keras_wm.files.config import layer_classes
from keras_wm.files.config.connections import connected_layers
from keras_wm.files.config.layer_names import nodes_in_config
from keras_wm.files.config.nodes import name_of
from keras_wm.files.config.usage import usage_of
from tests.files.forged_weights import adding, edit_archive, edit_hdf5
from tests.files.written import config_of, weights_bytes, write_archive
from tests.models import SubclassedModel
from tests.research.attacks.networks import BUILDERS

FOREIGN = np.arange(20, dtype="float32").reshape(4, 5)
X = np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)


def two_dense(**arguments):
    """A model with the layers `layers/dense` and `layers/dense_1`."""
    inputs = keras.Input((4,))
    x = layers.Dense(5, name="first", **arguments)(inputs)
    return keras.Model(inputs, layers.Dense(3, name="second")(x))


def nested():
    """A model with two nested models of one class, the larger one first."""
    inputs = keras.Input((4,))
    large = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layers.Dense(4)], name="large"
    )
    small = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="small")
    return keras.Model(inputs, small(large(inputs)))


def with_lora():
    model = two_dense()
    model.get_layer("first").enable_lora(2)
    return model


def outputs(model):
    return keras.ops.convert_to_numpy(model(X))


def unused_in(path):
    """Returns the paths of all weights that are not used, with the reasons."""
    with open_model_file(path) as model_file:
        assert model_file.has_config
        return {
            weight.path: weight.unused for weight in model_file.weights if weight.unused
        }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Models and their `.keras` files, by the function that builds the model."""
    folder = tmp_path_factory.mktemp("saved")
    files = {}
    for number, build in enumerate((two_dense, nested, with_lora)):
        model = build()
        path = folder / f"{number}.keras"
        model.save(path)
        assert unused_in(path) == {}
        files[build] = (model, path)
    return files


def assert_loads_unchanged(path, model):
    loaded = keras.saving.load_model(path, compile=False)
    np.testing.assert_array_equal(outputs(loaded), outputs(model))


@pytest.mark.parametrize(
    ("build", "path", "reason"),
    [
        (two_dense, "layers/leftover/vars/0", "no layer of the config"),
        (two_dense, "layers/dense_2/vars/0", "no layer of the config"),
        (two_dense, "layers/dense_01/vars/0", "no layer of the config"),
        (two_dense, "leftover/vars/0", "no layer of the config"),
        (two_dense, "layers/vars/0", "no layer of the config"),
        (two_dense, "layers/dense/part/vars/0", "layers of this class"),
        (two_dense, "layers/dense/kernel_initializer/vars/0", "layers of this class"),
        (two_dense, "_layer_checkpoint_dependencies/dense/vars/0", "no layer of the"),
        (nested, "layers/sequential_1/layers/dense_1/vars/0", "no layer of the"),
        (nested, "layers/sequential_1/layers/conv2d/vars/0", "no layer of the"),
        (with_lora, "layers/dense/vars/2", "layers of this class"),
        (with_lora, "layers/dense/vars/extra", "layers of this class"),
    ],
)
def test_exactly_an_added_kernel_is_unused(tmp_path, saved, build, path, reason):
    model, file = saved[build]
    forged = edit_archive(file, tmp_path / "a.keras", adding(path, FOREIGN))
    assert_loads_unchanged(forged, model)
    found = unused_in(forged)
    assert found.keys() == {path}
    assert reason in found[path]


def test_a_layer_that_is_not_connected_to_the_outputs_is_unused(tmp_path, saved):
    model, file = saved[two_dense]

    def add_first(config):
        nodes = config["config"]["layers"]
        leftover = copy.deepcopy(nodes[1])
        leftover["name"] = leftover["config"]["name"] = "leftover"
        nodes.insert(1, leftover)

    def add_weights(weights):
        weights["layers/dense_2/vars/0"] = FOREIGN
        weights["layers/dense_2/vars/1"] = FOREIGN[0]

    forged = edit_archive(file, tmp_path / "a.keras", add_weights, add_first)
    assert_loads_unchanged(forged, model)
    assert unused_in(forged) == {
        f"layers/dense_2/vars/{variable}": "the layer is not connected to the outputs "
        "of the model"
        for variable in (0, 1)
    }


def test_the_order_of_a_hostile_config_does_not_move_the_paths(tmp_path, saved):
    model, file = saved[nested]
    added = "layers/sequential_1/layers/dense_1/vars/0"

    def reverse(config):
        config["config"]["layers"].reverse()

    forged = edit_archive(file, tmp_path / "a.keras", adding(added, FOREIGN), reverse)
    assert_loads_unchanged(forged, model)
    assert unused_in(forged).keys() == {added}


def test_a_layer_that_is_stored_twice_is_never_used(tmp_path, saved):
    # Keras cannot load the foreign kernel, and finds the layer by another attribute.
    model, file = saved[two_dense]

    def replace_layer(weights):
        weights.copy("layers/dense", "_operations_by_depth/container_1/dense")
        del weights["layers/dense/vars"]
        weights["layers/dense/vars/0"] = FOREIGN[:, :2]

    forged = edit_archive(file, tmp_path / "a.keras", replace_layer)
    # Keras 3.12 refuses the whole file.
    with contextlib.suppress(ValueError):
        assert_loads_unchanged(forged, model)
    found = unused_in(forged)
    assert "in two places" in found["layers/dense/vars/0"]
    # It is not known which of both are read, for any layer of this class.
    with open_model_file(forged) as model_file:
        assert found.keys() == {weight.path for weight in model_file.weights}


def test_two_spellings_of_one_class_are_one_layer(tmp_path):
    inputs = keras.Input((2, 4, 4, 1))
    model = keras.Model(inputs, layers.ConvLSTM2D(2, 2)(inputs))
    model.save(tmp_path / "a.keras")
    assert unused_in(tmp_path / "a.keras") == {}
    added = "layers/conv_lst_m2d/cell/vars/0"
    forged = edit_archive(
        tmp_path / "a.keras", tmp_path / "b.keras", adding(added, FOREIGN)
    )
    keras.saving.load_model(forged, compile=False)
    assert added in unused_in(forged)


def test_a_second_file_of_weights_in_an_archive_is_unused(tmp_path, saved):
    model, file = saved[two_dense]
    for name in ("task.weights.h5", "model.weights.json"):
        members = {name: weights_bytes(kernel=FOREIGN)}
        if name.endswith("json"):
            index = {"weight_map": {"/layers/dense/vars": "shard.h5"}}
            members = {name: json.dumps(index).encode(), "shard.h5": members[name]}
        forged = edit_archive(file, tmp_path / "a.keras", members=members)
        assert_loads_unchanged(forged, model)
        assert set(unused_in(forged).values()) == {
            "Keras does not load this file of the model"
        }
        assert len(unused_in(forged)) == 1


def test_a_shard_that_the_index_does_not_name_for_a_layer_is_unused(tmp_path):
    for number, path in enumerate(("layers/dense/vars/0", "layers/dense/vars/1")):
        with h5py.File(tmp_path / f"m_0000{number}.weights.h5", "w") as file:
            file[path] = FOREIGN
            file["layers/other/vars/" + str(number)] = FOREIGN
    index = {
        "/layers/dense/vars": "m_00000.weights.h5",
        "/layers/other/vars": ["m_00000.weights.h5", "m_00001.weights.h5"],
    }
    path = tmp_path / "m.weights.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    with open_model_file(path) as model_file:
        unused = [weight.path for weight in model_file.weights if weight.unused]
        assert len(model_file.weights) == 4
    assert unused == ["m_00001.weights.h5/layers/dense/vars/1"]


@pytest.mark.parametrize(
    "path",
    [
        "model_weights/leftover/leftover/kernel",
        "model_weights/first/leftover/kernel",
        "model_weights/first/first/kernel:0",
        "model_weights/kernel",
    ],
)
def test_an_added_kernel_in_a_legacy_file_is_unused(tmp_path, path):
    model = two_dense()
    model.save(tmp_path / "a.h5")
    assert unused_in(tmp_path / "a.h5") == {}
    forged = tmp_path / "b.h5"
    data = (tmp_path / "a.h5").read_bytes()
    forged.write_bytes(edit_hdf5(data, adding(path, FOREIGN)))
    assert_loads_unchanged(forged, model)
    assert unused_in(forged) == {
        path: "the file does not list this weight as one of a layer"
    }


def test_a_custom_class_accounts_for_everything_in_it_and_is_named(tmp_path):
    model = SubclassedModel()
    model(np.zeros((1, 32), "float32"))
    model.save(tmp_path / "a.keras")
    added = adding("leftover/vars/0", FOREIGN)
    forged = edit_archive(tmp_path / "a.keras", tmp_path / "b.keras", added)
    assert unused_in(forged) == {}
    with open_model(forged, sandbox=True) as model_file:
        assert model_file.has_config
        assert model_file.custom_classes == ("SubclassedModel",)


def test_without_a_config_nothing_is_unused(tmp_path, saved):
    model, file = saved[two_dense]
    with zipfile.ZipFile(file) as archive:
        data = archive.read("model.weights.h5")
    path = tmp_path / "a.weights.h5"
    path.write_bytes(edit_hdf5(data, adding("layers/leftover/vars/0", FOREIGN)))
    for broken in (path, write_archive(tmp_path / "a.keras", path.read_bytes(), b"{")):
        with open_model_file(broken) as model_file:
            assert not model_file.has_config
            assert not any(weight.unused for weight in model_file.weights)
    with open_model(model) as in_memory:
        assert in_memory.has_config


def test_a_sandbox_reports_the_same(tmp_path, saved):
    added = adding("layers/leftover/vars/0", FOREIGN)
    forged = edit_archive(saved[two_dense][1], tmp_path / "a.keras", added)
    with open_model(forged, sandbox=True) as inside, open_model(forged) as outside:
        assert inside.has_config
        assert inside.custom_classes == ()
        assert [weight.unused for weight in inside.weights] == [
            weight.unused for weight in outside.weights
        ]


SEQUENCE = (4, 5)
# Layers with layers or several kernels inside them, and the shapes of their inputs.
LAYERS = {
    "stacked cells": (lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)]), 1),
    "bidirectional": (lambda: layers.Bidirectional(layers.LSTM(3)), 1),
    "time": (lambda: layers.TimeDistributed(layers.Dense(3)), 1),
    "spectral": (lambda: layers.SpectralNormalization(layers.Conv1D(3, 2)), 1),
    "attention": (lambda: layers.MultiHeadAttention(2, 3), 2),
    "grouped": (lambda: layers.GroupQueryAttention(3, 4, 2), 2),
    "additive": (layers.AdditiveAttention, 2),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (None, 5)), 1),
    "normalization": (lambda: layers.LayerNormalization(axis=(1, 2)), 1),
    "separable": (lambda: layers.SeparableConv1D(3, 2), 1),
    "prelu": (layers.PReLU, 1),
}


@pytest.fixture(scope="module")
def everything():
    """A model with all of `LAYERS`."""
    inputs = keras.Input(SEQUENCE)
    parts = []
    for build, number in LAYERS.values():
        layer = build()
        if isinstance(layer, layers.AdditiveAttention):
            parts.append(layer([inputs, inputs]))
        else:
            parts.append(layer(*[inputs] * number))
    return keras.Model(inputs, parts)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_no_weight_of_an_honest_model_is_unused(tmp_path, everything, suffix):
    path = tmp_path / f"a{suffix}"
    everything.save(path)
    assert unused_in(path) == {}
    with open_model_file(path) as model_file:
        assert model_file.custom_classes == ()


def test_no_weight_of_a_quantized_model_is_unused(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(6, 4),
            layers.EinsumDense("abc,cd->abd", (None, 4)),
            layers.Dense(3),
        ]
    )
    for layer in model.layers:
        layer.quantize("int4")
    model.save(tmp_path / "a.keras")
    assert unused_in(tmp_path / "a.keras") == {}


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_connected_layers_are_those_of_the_model_in_its_order(kind):
    model = BUILDERS[kind]()
    settings = json.loads(model.to_json())["config"]
    names = [name_of(node) for node in connected_layers(settings)]
    own = {layer.name for layer in model.layers}
    assert [name for name in names if name in own] == [
        layer.name for layer in model.layers
    ]


def test_every_layer_class_of_keras_is_known():
    # Nobody can know what the others hold, such as a SavedModel.
    opaque = {"FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"}
    abstract = {"Layer", "Wrapper"}
    for name in dir(keras.layers):
        kind = getattr(keras.layers, name)
        if isinstance(kind, type) and issubclass(kind, layers.Layer):
            node = {"module": "keras.layers", "class_name": name, "config": {}}
            known = layer_classes.is_built_in(node)
            assert known != (name in opaque | abstract), name
            # Paths in a file contain the name of the class, not of its alias.
            if known:
                assert layer_classes.class_of(node) == kind.__name__


def test_a_call_through_a_keyword_connects_a_layer():
    inputs = keras.Input(SEQUENCE)
    values = layers.Dense(5, name="values")(inputs)
    x = layers.MultiHeadAttention(2, 3)(query=inputs, value=values)
    settings = json.loads(keras.Model(inputs, x).to_json())["config"]
    assert "values" in [node["name"] for node in connected_layers(settings)]


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": "Functional", "config": {"layers": [1], "output_layers": 2}},
        {"class_name": "Functional", "config": {"layers": {}, "output_layers": [[]]}},
        {"class_name": ["Functional"], "config": {"layers": []}},
    ],
)
def test_any_config_can_be_read(config):
    assert usage_of(config, ["layers/dense", ""]).nodes.keys() >= {"layers/dense"}


def test_a_long_chain_of_calls_is_followed_without_recursion():
    count = 5_000
    nodes = [
        {
            "class_name": "Dense",
            "name": str(number),
            "config": {"name": str(number)},
            "inbound_nodes": [[[str(number - 1), 0, 0, {}]]],
        }
        for number in range(1, count)
    ]
    first = {"class_name": "InputLayer", "name": "0", "config": {"name": "0"}}
    settings = {
        "layers": [*nodes, first],
        "input_layers": [["0", 0, 0]],
        "output_layers": [[str(count - 1), 0, 0]],
    }
    assert [node["name"] for node in connected_layers(settings)] == [
        str(number) for number in range(count)
    ]


def test_more_paths_of_keras_2_than_layers_are_not_matched_by_rank():
    config = json.loads(config_of(("Dense", "a"), ("Dense", "b")))
    owners = [f"_layer_checkpoint_dependencies/dense{end}" for end in ("", "_2", "_4")]
    assert all(nodes_in_config(config, owners[:2]).values())
    nodes = nodes_in_config(config, owners)
    assert [nodes[owner] for owner in owners] == [None] * 3
