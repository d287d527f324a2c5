"""Reading from configs which layers are called on what."""

import json

import keras
import pytest
from keras import layers

from keras_wm.files.config.calls import calls_in
from tests.research.attacks.networks import BUILDERS

LEGACY = {
    "class_name": "Functional",
    "config": {
        "name": "old",
        "layers": [
            {
                "class_name": "Add",
                "config": {"name": "add"},
                "name": "add",
                "inbound_nodes": [[["a", 0, 0, {}], ["b", 0, 0, {}]]],
            },
            {
                "class_name": "Dense",
                "config": {"name": "a", "units": 3},
                "name": "a",
                "inbound_nodes": [[["x", 0, 0, {}]]],
            },
            {
                "class_name": "Dense",
                "config": {"name": "b", "units": 3},
                "name": "b",
                "inbound_nodes": [[["x", 0, 0, {"scale": 2.0}]]],
            },
            {
                "class_name": "InputLayer",
                "config": {"name": "x", "batch_input_shape": [None, 4]},
                "name": "x",
                "inbound_nodes": [],
            },
        ],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["add", 0, 0]],
    },
}


def test_a_config_of_keras_2_in_any_order():
    found = calls_in(LEGACY)
    names = [call.layer for call in found.calls]
    assert set(names) == {"x", "a", "b", "add"}
    assert names.index("x") < names.index("a") < names.index("add")
    calls = {call.layer: call for call in found.calls}
    assert calls["add"].inputs == (calls["a"].output, calls["b"].output)
    assert found.outputs == [calls["add"].output]
    # Whatever its further argument may do.
    assert [name for name, call in calls.items() if not call.understood] == ["b"]


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_each_call_comes_behind_those_that_it_needs(kind):
    model = BUILDERS[kind]()
    found = calls_in(json.loads(model.to_json()))
    made = set()
    for call in found.calls:
        assert set(call.inputs) <= made
        made.add(call.output)
    assert set(found.outputs) <= made
    own = {layer.name for layer in model.layers if not hasattr(layer, "layers")}
    assert own <= {call.layer for call in found.calls}


def test_a_model_inside_has_its_name_before_its_layers_and_is_called_as_often():
    calls = calls_in(BUILDERS["shared"]().get_config()).calls
    inside = [call for call in calls if call.layer.startswith("inner/")]
    # Its own input layer is no call.
    assert len(inside) == 2 * 3


def test_a_model_inside_may_have_several_inputs():
    calls = calls_in(BUILDERS["inside"]().get_config()).calls
    assert [one.kind for one in calls if one.layer.startswith("two/")] == [
        *("Conv2D", "Conv2D", "ReLU", "Add", "ReLU")
    ]
    assert all(one.understood for one in calls)


def test_a_number_among_the_tensors_is_something_else_than_a_layer_by_itself():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="dense")(inputs) + 1.0
    x = layers.Dropout(0.5, name="dropout")(x, training=True)
    calls = calls_in(keras.Model(inputs, x).get_config()).calls
    understood = {call.kind: call.understood for call in calls}
    assert understood == {
        "InputLayer": True,
        "Dense": True,
        "Add": False,
        "Dropout": True,
    }


def circle():
    config = json.loads(json.dumps(LEGACY))
    config["config"]["layers"][1]["inbound_nodes"] = [[["add", 0, 0, {}]]]
    return config


def nested(depth):
    config = {"class_name": "Dense", "config": {"name": "dense"}}
    for _ in range(depth):
        config = {
            "class_name": "Sequential",
            "config": {"name": "m", "layers": [config]},
        }
    return config


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        {"class_name": "Odd", "config": {"units": 3}},
        {"config": {"layers": [3]}},
        {"config": {"layers": [{"class_name": "Dense", "config": {}}]}},
        {"config": {"layers": [], "input_layers": [], "output_layers": []}},
        {"config": {"layers": [], "input_layers": [], "output_layers": [["x", 0, 0]]}},
        circle(),
        nested(1000),
    ],
    ids=lambda _: "",
)
def test_what_tells_no_calls_is_none(config):
    assert calls_in(config) is None


def test_copies_of_copies_of_a_model_are_not_spelled_out():
    config = {"class_name": "Dense", "config": {"name": "dense"}}
    for number in range(18):
        twice = [{"class_name": "Sequential", "config": config["config"]}] * 2
        if not number:
            twice = [config] * 2
        config = {"config": {"name": f"m{number}", "layers": twice}}
    # 2 ** 18 calls.
    assert calls_in(config) is None
