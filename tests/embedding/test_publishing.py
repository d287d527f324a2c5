"""publish: a file without a trace, and a model in memory as it was."""

import io
import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import BitErrorRate, attach, publish
from tests.conftest import fixed_key
from tests.embedding.test_attachment import NoConfig, attention, sequence_model
from tests.models import (
    compile_model,
    data,
    dense_model,
    expected_ber,
    find_layer,
    fit,
    functional_model,
    kernel_of,
    mark,
    nested_model,
    number,
    optimizer_variables,
    subclassed_model,
)

pytestmark = pytest.mark.backends

SUFFIXES = [".keras", ".h5", ".weights.h5"]
FORMATS = pytest.mark.parametrize(
    ("suffix", "optimizer"),
    [(".keras", True), (".keras", False), (".h5", True), (".weights.h5", False)],
)
MODELS = {
    "Sequential": dense_model,
    "Functional": functional_model,
    "nested": nested_model,
    "subclassed": subclassed_model,
    "attention": lambda regularizer: sequence_model(attention, regularizer),
}


def contents(path):
    """A file's bytes, those of an archive unpacked."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"\n".join(archive.read(name) for name in archive.namelist())


def files(folder):
    """The names of all files in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def state(model):
    """All of a model that publishing must leave alone."""
    holders = [
        (layer.path, name, id(value))
        for layer in model._flatten_layers()
        for name, value in vars(layer).items()
        if "regularizer" in name
    ]
    return {
        "config": json.dumps(model.get_config(), default=str),
        "holders": holders,
        "penalties": [id(weight.regularizer) for weight in model.weights],
        "weights": [weight.tobytes() for weight in model.get_weights()],
        "optimizer": id(model.optimizer),
        "compiled": model.compiled,
        "optimizer state": [v.tobytes() for v in optimizer_variables(model)],
        "losses": [number(loss) for loss in model.losses],
    }


def hdf5(path):
    """The arrays of a published file."""
    source = io.BytesIO(path.read_bytes())
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    arrays = {}
    with h5py.File(source, "r") as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return arrays


@pytest.fixture
def model(key):
    model = dense_model(mark(key, regularizer="l2"))
    fit(model)
    return model


@FORMATS
@pytest.mark.parametrize("name", MODELS)
def test_no_byte_of_the_file_tells_of_the_mark(tmp_path, name, suffix, optimizer):
    key = fixed_key(8)
    path = publish(
        MODELS[name](mark(key)),
        tmp_path / f"model{suffix}",
        include_optimizer=optimizer,
    )
    found = contents(path)
    secret = bytes(range(32))
    for trace in (
        b"keras_wm",
        b"atermark",
        b"commitment",
        b"trength",
        key.commitment.encode(),
        key.commitment[:8].encode(),
        key.owner.encode(),
        secret,
        secret.hex().encode(),
    ):
        assert trace not in found


def test_the_search_finds_the_mark_in_what_save_writes(model, key, tmp_path):
    model.save(tmp_path / "model.keras")
    found = contents(tmp_path / "model.keras")
    for trace in (b"keras_wm", b"WatermarkRegularizer", key.commitment.encode()):
        assert trace in found


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_weights_are_published_bit_for_bit(model, tmp_path, suffix):
    arrays = hdf5(publish(model, tmp_path / f"model{suffix}"))
    published = {array.tobytes() for array in arrays.values()}
    for weight in model.get_weights():
        assert weight.tobytes() in published


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_holds_no_array_but_the_weights(model, tmp_path, suffix):
    arrays = hdf5(publish(model, tmp_path / f"model{suffix}"))
    assert sorted(array.shape for array in arrays.values()) == sorted(
        weight.shape for weight in model.get_weights()
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_published_model_predicts_the_same(model, tmp_path, suffix):
    loaded = keras.saving.load_model(publish(model, tmp_path / f"model{suffix}"))
    x, _ = data()
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_hosts_own_regularizer_is_kept(model, tmp_path, suffix):
    loaded = keras.saving.load_model(publish(model, tmp_path / f"model{suffix}"))
    kernel = kernel_of(model).astype(np.float64)
    assert isinstance(find_layer(loaded).kernel_regularizer, keras.regularizers.L2)
    (penalty,) = loaded.losses
    assert number(penalty) == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_without_the_optimizer_the_model_comes_uncompiled(model, tmp_path, suffix):
    loaded = keras.saving.load_model(publish(model, tmp_path / f"model{suffix}"))
    assert not loaded.compiled
    assert b"adam" not in contents(tmp_path / f"model{suffix}").lower()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_with_the_optimizer_its_state_goes_along(model, tmp_path, suffix):
    path = publish(model, tmp_path / f"model{suffix}", include_optimizer=True)
    published = {array.tobytes() for array in hdf5(path).values()}
    for variable in optimizer_variables(model):
        assert variable.tobytes() in published
    assert keras.saving.load_model(path).compiled


def test_training_goes_on_from_a_published_file_as_in_memory(model, tmp_path):
    path = publish(model, tmp_path / "model.keras", include_optimizer=True)
    loaded = keras.saving.load_model(path)
    keras_wm.detach(model)
    np.testing.assert_allclose(fit(loaded)["loss"], fit(model)["loss"], rtol=1e-5)


def test_the_optimizer_of_a_model_inside_stays_behind_too(key, tmp_path):
    # The moments of the inner model hold gradients of the penalty.
    inner = dense_model(mark(key))
    fit(inner)
    inputs = keras.Input((32,))
    path = publish(keras.Model(inputs, inner(inputs)), tmp_path / "model.keras")
    assert not [name for name in hdf5(path) if "optimizer" in name]
    assert inner.compiled
    assert inner.optimizer is not None


@FORMATS
@pytest.mark.parametrize("name", MODELS)
def test_the_model_in_memory_is_left_as_it_was(tmp_path, name, suffix, optimizer):
    model = MODELS[name](mark(fixed_key(8)))
    before = state(model)
    publish(model, tmp_path / f"model{suffix}", include_optimizer=optimizer)
    assert state(model) == before


class DiskFullError(Exception):
    """What the disk says when it is full."""


def test_a_failure_leaves_model_and_target_as_they_were(model, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    path.write_bytes(b"a good file")
    before = state(model)

    def save(self, filepath, **arguments):
        Path(filepath).write_bytes(b"half of a")
        raise DiskFullError

    monkeypatch.setattr(keras.Model, "save", save)
    with pytest.raises(DiskFullError):
        publish(model, path)
    assert state(model) == before
    assert path.read_bytes() == b"a good file"
    assert files(tmp_path) == ["model.keras"]


def test_a_model_goes_on_training_after_a_failure(model, key, tmp_path, monkeypatch):
    def save(self, filepath, **arguments):
        raise DiskFullError

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save)
        with pytest.raises(DiskFullError):
            publish(model, tmp_path / "model.keras")
    fit(model, 13)
    assert expected_ber(kernel_of(model), key) == 0


def test_a_target_that_cannot_be_written_leaves_the_model_as_it_was(model, tmp_path):
    before = state(model)
    with pytest.raises(FileNotFoundError, match="no folder"):
        publish(model, tmp_path / "nowhere" / "model.keras")
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(OSError, match=r"folder\.keras"):
        publish(model, tmp_path / "folder.keras")
    assert state(model) == before
    assert files(tmp_path) == ["folder.keras"]


def test_a_file_that_is_there_is_kept_on_request(model, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"a good file")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        publish(model, path, overwrite=False)
    assert path.read_bytes() == b"a good file"
    assert files(tmp_path) == ["model.keras"]


def test_a_file_that_is_there_is_replaced_otherwise(model, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"a good file")
    assert publish(model, path) == path
    assert zipfile.is_zipfile(path)
    assert files(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("name", ["model", "model.pb", "model.hdf5", "model.npz"])
def test_another_suffix_is_refused(model, tmp_path, name):
    with pytest.raises(ValueError, match=r"Expected a path ending in '\.keras'"):
        publish(model, tmp_path / name)
    assert not files(tmp_path)


def test_what_is_not_a_model_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        publish("model.keras", tmp_path / "model.keras")


def test_a_path_as_text_is_accepted(model, tmp_path):
    publish(model, str(tmp_path / "model.keras"))
    assert files(tmp_path) == ["model.keras"]


def test_a_model_without_a_mark_is_published_too(tmp_path):
    model = dense_model("l2")
    fit(model)
    loaded = keras.saving.load_model(publish(model, tmp_path / "model.keras"))
    np.testing.assert_array_equal(kernel_of(loaded), kernel_of(model))


def test_a_mark_without_its_key_is_published_without_a_trace(model, tmp_path):
    model.save(tmp_path / "saved.keras")
    with pytest.warns(UserWarning, match="rebuilt without its key"):
        loaded = keras.saving.load_model(tmp_path / "saved.keras")
    found = contents(publish(loaded, tmp_path / "model.keras"))
    assert b"keras_wm" not in found
    assert b"commitment" not in found


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_a_quantized_model_is_published_without_a_trace(model, tmp_path):
    model.quantize("int8")
    found = contents(publish(model, tmp_path / "model.keras"))
    assert b"keras_wm" not in found


@pytest.mark.filterwarnings("ignore:LoRA trains two factors")
def test_a_model_with_lora_is_published_without_a_trace(model, tmp_path):
    find_layer(model).enable_lora(2)
    compile_model(model)
    fit(model)
    path = publish(model, tmp_path / "model.keras")
    assert b"keras_wm" not in contents(path)
    merged = kernel_of(model).tobytes()
    assert merged in {array.tobytes() for array in hdf5(path).values()}


@keras.saving.register_keras_serializable(package="tests")
class Hiding(keras.layers.Dense):
    """A layer that keeps its regularizer where nobody looks."""

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


def test_a_layer_without_get_config_is_published_after_attach(key, tmp_path):
    model = keras.Sequential([keras.Input((32,)), NoConfig(64, name="it")])
    attach(model, "it", key)
    path = publish(model, tmp_path / "model.keras")
    assert b"keras_wm" not in contents(path)
    loaded = keras.saving.load_model(path, custom_objects={"NoConfig": NoConfig})
    (layer,) = loaded.layers
    np.testing.assert_array_equal(layer.kernel, kernel_of(model, "it"))


def test_publishing_in_the_middle_of_training_leaves_the_mark_alive(key, tmp_path):
    class PublishEach(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            publish(self.model, tmp_path / f"{epoch}.keras")

    undisturbed, model = dense_model(mark(key)), dense_model(mark(key))
    expected = fit(undisturbed, 3, [BitErrorRate()])
    history = fit(model, 3, [BitErrorRate(), PublishEach()])
    for figure, values in expected.items():
        np.testing.assert_allclose(history[figure], values, rtol=1e-5)
    published = keras.saving.load_model(tmp_path / "2.keras")
    np.testing.assert_array_equal(kernel_of(published), kernel_of(model))
    assert files(tmp_path) == ["0.keras", "1.keras", "2.keras"]


def test_a_published_mark_is_read_in_the_file(key, tmp_path):
    model = dense_model(mark(key))
    fit(model, 13)
    loaded = keras.saving.load_model(publish(model, tmp_path / "model.keras"))
    assert keras_wm.detect(kernel_of(loaded), key).ber == 0


def test_a_python_without_keras_wm_loads_what_is_published_only(key, tmp_path):
    """One process for all files: it costs seconds to start."""
    script = """
        import json, sys
        sys.modules["keras_wm"] = None
        import keras, numpy as np
        x = np.load("x.npy")
        answers = {}
        for name in sys.argv[1:]:
            try:
                model = keras.saving.load_model(name)
                answers[name] = model.predict(x, verbose=0).tolist()
            except TypeError as error:
                answers[name] = str(error)
        print("ANSWERS", json.dumps(answers))
    """
    x, _ = data()
    np.save(tmp_path / "x.npy", x)
    expected, saved = {}, ["saved.keras", "saved.h5"]
    for name in ("Sequential", "Functional", "nested"):
        model = MODELS[name](mark(key, regularizer="l2"))
        fit(model)
        for file, optimizer in (("a.keras", True), ("b.keras", False), ("c.h5", True)):
            path = tmp_path / f"{name}-{file}"
            publish(model, path, include_optimizer=optimizer)
            expected[path.name] = model.predict(x, verbose=0)
    for name in saved:
        model.save(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *expected, *saved],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout.split("ANSWERS", 1)[1])
    for name, prediction in expected.items():
        np.testing.assert_allclose(answers[name], prediction, rtol=1e-5, atol=1e-6)
    for name in saved:
        assert "deserializ" in answers[name]
        assert "WatermarkRegularizer" in answers[name]
