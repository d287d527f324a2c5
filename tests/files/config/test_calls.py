"""Calls of layers in the configs of models."""

import json

import keras
import pytest
from keras import layers

from keras_wm.files.config import calls as calls_module
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


def test_the_layers_of_a_keras_2_config_can_be_in_any_order():
    result = calls_in(LEGACY)
    names = [call.layer for call in result.calls]
    assert set(names) == {"x", "a", "b", "add"}
    assert names.index("x") < names.index("a") < names.index("add")
    calls = {call.layer: call for call in result.calls}
    assert calls["add"].inputs == (calls["a"].output, calls["b"].output)
    assert result.outputs == [calls["add"].output]
    # Its other argument can have any effect.
    assert [name for name, call in calls.items() if not call.understood] == ["b"]


@pytest.mark.parametrize("kind", list(BUILDERS))
def test_each_call_comes_after_the_calls_that_it_needs(kind):
    model = BUILDERS[kind]()
    result = calls_in(json.loads(model.to_json()))
    tensors = set()
    for call in result.calls:
        assert set(call.inputs) <= tensors
        tensors.add(call.output)
    assert set(result.outputs) <= tensors
    own = {layer.name for layer in model.layers if not hasattr(layer, "layers")}
    assert own <= {call.layer for call in result.calls}


def test_the_calls_of_a_nested_model_are_repeated_for_each_call_of_it():
    calls = calls_in(BUILDERS["shared"]().get_config()).calls
    inside = [call for call in calls if call.layer.startswith("inner/")]
    # Two calls of three layers; the input layer of the nested model is not called.
    assert len(inside) == 2 * 3


def test_a_nested_model_can_have_several_inputs():
    calls = calls_in(BUILDERS["inside"]().get_config()).calls
    assert [call.kind for call in calls if call.layer.startswith("two/")] == [
        *("Conv2D", "Conv2D", "ReLU", "Add", "ReLU")
    ]
    assert all(call.understood for call in calls)


def test_a_call_with_a_number_besides_tensors_is_not_understood():
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


def circular():
    """Returns a config whose layers need each other's output."""
    config = json.loads(json.dumps(LEGACY))
    config["config"]["layers"][1]["inbound_nodes"] = [[["add", 0, 0, {}]]]
    return config


def nested(depth):
    """Returns a config of models inside models."""
    config = {"class_name": "Dense", "config": {"name": "dense"}}
    for _ in range(depth):
        config = {
            "class_name": "Sequential",
            "config": {"name": "m", "layers": [config]},
        }
    return config


def test_a_config_without_calls_gives_none():
    for config in (
        None,
        [],
        {"class_name": "Odd", "config": {"units": 3}},
        {"config": {"layers": [3]}},
        {"config": {"layers": [{"class_name": "Dense", "config": {}}]}},
        {"config": {"layers": [], "input_layers": [], "output_layers": []}},
        {"config": {"layers": [], "input_layers": [], "output_layers": [["x", 0, 0]]}},
        circular(),
        nested(1000),
    ):
        assert calls_in(config) is None


def test_too_many_calls_give_none(monkeypatch):
    monkeypatch.setattr(calls_module, "_MOST_CALLS", 1000)

    def calls_of_copies(levels):
        """Returns the calls of a model in which each level has the next one twice."""
        layer = {"class_name": "Dense", "config": {"name": "dense"}}
        for level in range(levels):
            settings = {"name": f"m{level}", "layers": [layer, layer]}
            layer = {"class_name": "Sequential", "config": settings}
        return calls_in(layer)

    assert len(calls_of_copies(9).calls) == 2**9
    assert calls_of_copies(10) is None
    assert calls_of_copies(18) is None
