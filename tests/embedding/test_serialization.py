"""The config of a regularizer, and models that are saved, loaded and cloned with it."""

import json
import subprocess
import sys
import textwrap
import warnings
import zipfile

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import WatermarkRegularizer
from tests.models import (
    FEATURES,
    UNITS,
    compile_model,
    data,
    dense_model,
    expected_scores,
    find_layer,
    fit_eagerly,
    functional_model,
    kernel_of,
    key_not_found,
    mark,
    nested_model,
    number,
    outputs,
)

pytestmark = pytest.mark.backends

KERNEL = np.random.default_rng(3).normal(size=(FEATURES, UNITS)).astype("float32")


# The config.


def test_the_config_holds_the_commitment_and_no_other_trace_of_the_key(key):
    regularizer = WatermarkRegularizer(key, strength=0.5, margin=1.0, regularizer="l2")
    config = regularizer.get_config()
    assert config.pop("regularizer")["class_name"] == "L2"
    assert config == {
        "commitment": key.commitment,
        "loss": "margin",
        "strength": 0.5,
        "margin": 1.0,
        "slot": 0,
        "anchor": "",
    }


def test_the_config_is_plain_json(key):
    config = mark(key, strength=np.float32(0.5), margin=np.float64(1)).get_config()
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize("loss", ["margin", "crossentropy"])
def test_a_config_gives_the_same_regularizer_if_the_key_is_in_scope(key, loss):
    regularizer = WatermarkRegularizer(key, loss, 0.5, regularizer="l2")
    with keras_wm.keys(key):
        rebuilt = WatermarkRegularizer.from_config(regularizer.get_config())
    assert rebuilt.key is key
    assert number(rebuilt(KERNEL)) == number(regularizer(KERNEL))
    assert rebuilt.get_config() == regularizer.get_config()


def test_without_its_key_only_the_hosts_penalty_remains(key):
    regularizer = mark(key, regularizer="l2")
    with key_not_found(key.commitment[:8]):
        rebuilt = WatermarkRegularizer.from_config(regularizer.get_config())
    assert rebuilt.key is None
    assert "inactive: key not loaded" in repr(rebuilt)
    host = keras.regularizers.L2(0.01)
    assert number(rebuilt(KERNEL)) == pytest.approx(number(host(KERNEL)))
    assert rebuilt.get_config() == regularizer.get_config()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_without_key_and_host_the_penalty_is_zero(key, dtype):
    with key_not_found():
        rebuilt = WatermarkRegularizer.from_config(mark(key).get_config())
    x = keras.ops.cast(KERNEL, dtype)
    assert number(rebuilt(x)) == 0
    assert keras.backend.standardize_dtype(rebuilt(x).dtype) == "float32"


# Host regularizers that cannot be serialized.


class Broken(keras.regularizers.Regularizer):
    """A host's regularizer whose `get_config` raises an error."""

    def __call__(self, x):
        return 0.5 * keras.ops.sum(x)

    def get_config(self):
        raise RuntimeError("no config today")


class NotPlain(Broken):
    """A host's regularizer whose config is not JSON."""

    def get_config(self):
        return {"thing": object()}


class NotKeras:
    """A host's regularizer that Keras cannot serialize."""

    def __call__(self, x):
        return 0.5 * keras.ops.sum(x)


HOSTS = {
    "broken": Broken(),
    "not plain": NotPlain(),
    "not Keras": NotKeras(),
    "lambda": lambda x: 0.5 * keras.ops.sum(x),
}


@pytest.mark.filterwarnings("ignore:The host's regularizer")
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_no_host_prevents_a_model_from_being_saved(key, tmp_path, name, suffix):
    model = dense_model(mark(key, regularizer=HOSTS[name]), compiled=False)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"a good file")
    model.save(path)
    if name == "lambda":
        # Keras writes its code and refuses to load it, as it would without a mark.
        assert zipfile.is_zipfile(path) or path.read_bytes().startswith(b"\x89HDF")
        return
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(kernel_of(loaded), kernel_of(model))


@pytest.mark.parametrize("name", HOSTS)
def test_get_config_does_not_raise_if_warnings_are_errors(key, name):
    # Keras opens its target first: an error would empty a good file.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = mark(key, regularizer=HOSTS[name]).get_config()
    assert config["commitment"] == key.commitment


def test_a_host_that_is_lost_in_the_file_is_warned_of(key, tmp_path):
    model = dense_model(mark(key, regularizer=Broken()))
    with pytest.warns(UserWarning, match="cannot be serialized .*missing from the"):
        model.save(tmp_path / "model.keras")


# Models.

MODELS = {
    "Sequential": dense_model,
    "Functional": functional_model,
    "nested": nested_model,
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_loaded_with_its_key_has_its_penalty(
    key, tmp_path, name, suffix
):
    model = MODELS[name](mark(key, regularizer="l2"))
    path = tmp_path / f"model{suffix}"
    model.save(path)
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(path)
    assert [number(loss) for loss in loaded.losses] == [
        pytest.approx(number(loss), rel=1e-6) for loss in model.losses
    ]


def test_a_model_that_is_loaded_with_its_key_continues_to_train_the_mark(key, tmp_path):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model = dense_model(mark(key), optimizer)
    fit_eagerly(model, 2)
    model.save(tmp_path / "model.keras")
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit_eagerly(model, 2)
    fit_eagerly(loaded, 2)
    np.testing.assert_allclose(
        kernel_of(loaded), kernel_of(model), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_that_is_loaded_without_its_key_works(key, tmp_path, suffix):
    model = dense_model(mark(key))
    fit_eagerly(model)
    model.save(tmp_path / f"model{suffix}")
    with key_not_found():
        loaded = keras.saving.load_model(tmp_path / f"model{suffix}")
    x, _ = data()
    np.testing.assert_array_equal(outputs(loaded, x), outputs(model, x))
    # Keras 3.15 loads from .h5 an optimizer that cannot continue.
    fit_eagerly(compile_model(loaded))


def test_saving_a_model_that_was_loaded_without_its_key_keeps_the_commitment(
    key, tmp_path
):
    dense_model(mark(key)).save(tmp_path / "a.keras")
    with key_not_found():
        keras.saving.load_model(tmp_path / "a.keras").save(tmp_path / "b.keras")
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(tmp_path / "b.keras")
    assert find_layer(loaded).kernel.regularizer.key is key


def test_a_clone_is_marked(key):
    model = dense_model(mark(key))
    clone = compile_model(keras.models.clone_model(model))
    before = expected_scores(kernel_of(clone), key).mean()
    fit_eagerly(clone, 3)
    assert expected_scores(kernel_of(clone), key).mean() > before + 0.1


def test_a_clone_without_the_key_is_inactive_and_warned_of(key):
    with key_not_found():
        clone = keras.models.clone_model(dense_model(mark(key)))
    assert [number(loss) for loss in clone.losses] == [0]


def test_both_directions_of_a_bidirectional_layer_are_marked(key):
    # Keras makes them from the layer's config.
    layer = keras.layers.Bidirectional(
        keras.layers.LSTM(16, kernel_regularizer=mark(key))
    )
    layer.build((None, 5, FEATURES))
    assert len(layer.losses) == 2
    assert all(number(loss) > 0 for loss in layer.losses)


@pytest.mark.study
def test_a_fresh_process_needs_only_the_code_of_the_documentation(key, tmp_path):
    """All claims use one process, because it takes seconds to start."""
    dense_model(mark(key)).save(tmp_path / "model.keras")
    key.save(tmp_path / "owner.key")
    script = """
        import json, warnings
        warnings.simplefilter("ignore")
        import keras, keras_wm

        def state_of_loaded_model():
            model = keras.saving.load_model("model.keras")
            regularizer = model.layers[0].kernel_regularizer
            return "active" if regularizer.key else "inactive"

        before = state_of_loaded_model()
        key = keras_wm.WatermarkKey.load("owner.key")
        live = state_of_loaded_model()
        with keras_wm.keys():
            on_purpose = state_of_loaded_model()
        print("ANSWERS", json.dumps([before, live, on_purpose]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout.split("ANSWERS", 1)[1])
    assert answers == ["inactive", "active", "inactive"]
