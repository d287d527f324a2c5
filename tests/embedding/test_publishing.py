"""publish: a file without any trace of the mark, and an unchanged model in memory."""

import io
import json
import subprocess
import sys
import textwrap
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import BitErrorRate, attach, publish
from tests.conftest import fixed_key
from tests.models import (
    MODELS,
    NoConfig,
    attention,
    compile_model,
    data,
    dense_model,
    find_layer,
    fit,
    fit_eagerly,
    kernel_of,
    key_not_found,
    mark,
    number,
    optimizer_variables,
    outputs,
    sequence_model,
    write_mark,
)

pytestmark = pytest.mark.backends

SUFFIXES = [".keras", ".h5", ".weights.h5"]
# Suffix of the file, and whether the optimizer is included.
FORMATS = [(".keras", True), (".keras", False), (".h5", True), (".weights.h5", False)]
KINDS = {
    **MODELS,
    "attention": lambda regularizer: sequence_model(attention, regularizer),
}


def contents(path):
    """Returns the bytes of a file, with archives unpacked."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return b"\n".join(archive.read(name) for name in archive.namelist())


def files(folder):
    """Returns the names of all files in a folder, also of hidden ones."""
    return sorted(path.name for path in folder.iterdir())


def state(model):
    """Returns everything of a model that publishing must leave unchanged."""
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
    """Returns the arrays of a published file."""
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


@pytest.fixture(scope="module")
def trained():
    """A marked model with an optimizer that has a state. Tests must not change it."""
    model = dense_model(mark(fixed_key(), regularizer="l2"), "adam")
    fit_eagerly(model)
    return model


@pytest.mark.parametrize("name", KINDS)
def test_the_file_has_no_trace_of_the_mark_and_the_model_is_unchanged(tmp_path, name):
    key = fixed_key(8)
    model = KINDS[name](mark(key))
    before = state(model)
    secret = bytes(range(32))
    for number_of_file, (suffix, optimizer) in enumerate(FORMATS):
        path = tmp_path / f"{number_of_file}{suffix}"
        content = contents(publish(model, path, include_optimizer=optimizer))
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
            assert trace not in content, (path, trace)
        assert state(model) == before, path


def test_the_search_finds_the_mark_in_the_file_of_save(trained, key, tmp_path):
    trained.save(tmp_path / "model.keras")
    content = contents(tmp_path / "model.keras")
    for trace in (b"keras_wm", b"WatermarkRegularizer", key.commitment.encode()):
        assert trace in content


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_holds_exactly_the_weights_bit_for_bit(trained, tmp_path, suffix):
    arrays = hdf5(publish(trained, tmp_path / f"model{suffix}")).values()
    weights = trained.get_weights()
    assert sorted(array.tobytes() for array in arrays) == sorted(
        weight.tobytes() for weight in weights
    )
    assert sorted(array.shape for array in arrays) == sorted(
        weight.shape for weight in weights
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_published_model_is_the_same_uncompiled_model(trained, tmp_path, suffix):
    path = publish(trained, tmp_path / f"model{suffix}")
    loaded = keras.saving.load_model(path)
    x, _ = data()
    np.testing.assert_array_equal(outputs(loaded, x), outputs(trained, x))
    assert not loaded.compiled
    assert b"adam" not in contents(path).lower()
    # The host's own regularizer is kept.
    kernel = kernel_of(trained).astype(np.float64)
    assert isinstance(find_layer(loaded).kernel_regularizer, keras.regularizers.L2)
    (penalty,) = loaded.losses
    assert number(penalty) == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_optimizers_state_is_included_on_request(trained, tmp_path, suffix):
    path = publish(trained, tmp_path / f"model{suffix}", include_optimizer=True)
    published = {array.tobytes() for array in hdf5(path).values()}
    for variable in optimizer_variables(trained):
        assert variable.tobytes() in published
    assert keras.saving.load_model(path).compiled


def test_training_resumes_from_a_published_file_as_in_memory(key, tmp_path):
    model = dense_model(mark(key, regularizer="l2"), "adam")
    fit_eagerly(model)
    path = publish(model, tmp_path / "model.keras", include_optimizer=True)
    loaded = keras.saving.load_model(path)
    keras_wm.detach(model)
    np.testing.assert_allclose(
        fit_eagerly(loaded, 3)["loss"], fit_eagerly(model, 3)["loss"], rtol=1e-5
    )


def test_the_optimizer_of_a_nested_model_is_not_included_either(trained, tmp_path):
    # Its state contains gradients of the penalty.
    inputs = keras.Input((32,))
    model = keras.Model(inputs, trained(inputs))
    path = publish(model, tmp_path / "model.keras")
    assert not [name for name in hdf5(path) if "optimizer" in name]
    assert trained.compiled
    assert trained.optimizer is not None


def test_a_path_as_text_is_accepted(trained, tmp_path):
    publish(trained, str(tmp_path / "model.keras"))
    assert files(tmp_path) == ["model.keras"]


def test_a_model_without_a_mark_is_published_too(tmp_path):
    model = dense_model("l2")
    loaded = keras.saving.load_model(publish(model, tmp_path / "model.keras"))
    np.testing.assert_array_equal(kernel_of(loaded), kernel_of(model))


def test_a_mark_without_its_key_is_published_without_a_trace(key, tmp_path):
    dense_model(mark(key)).save(tmp_path / "saved.keras")
    with key_not_found():
        loaded = keras.saving.load_model(tmp_path / "saved.keras")
    content = contents(publish(loaded, tmp_path / "model.keras"))
    assert b"keras_wm" not in content
    assert b"commitment" not in content


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_a_quantized_model_is_published_without_a_trace(key, tmp_path):
    model = dense_model(mark(key))
    model.quantize("int8")
    content = contents(publish(model, tmp_path / "model.keras"))
    assert b"keras_wm" not in content


@pytest.mark.filterwarnings("ignore:LoRA freezes the kernel")
def test_a_model_with_lora_is_published_without_a_trace(key, tmp_path):
    model = dense_model(mark(key))
    find_layer(model).enable_lora(2)
    compile_model(model)
    fit_eagerly(model)
    path = publish(model, tmp_path / "model.keras")
    assert b"keras_wm" not in contents(path)
    merged = kernel_of(model).tobytes()
    assert merged in {array.tobytes() for array in hdf5(path).values()}


def test_a_layer_without_get_config_is_published_after_attach(key, tmp_path):
    model = keras.Sequential([keras.Input((32,)), NoConfig(64, name="it")])
    attach(model, "it", key)
    path = publish(model, tmp_path / "model.keras")
    assert b"keras_wm" not in contents(path)
    loaded = keras.saving.load_model(path, custom_objects={"NoConfig": NoConfig})
    (layer,) = loaded.layers
    np.testing.assert_array_equal(layer.kernel, kernel_of(model, "it"))


def test_publishing_during_training_does_not_disturb_the_mark(model, tmp_path):
    class PublishEach(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            publish(self.model, tmp_path / f"{epoch}.keras")

    start = model.get_weights()
    expected = fit(model, 3, [BitErrorRate()])
    model.set_weights(start)
    history = fit(model, 3, [BitErrorRate(), PublishEach()])
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)
    published = keras.saving.load_model(tmp_path / "2.keras")
    np.testing.assert_array_equal(kernel_of(published), kernel_of(model))
    assert files(tmp_path) == ["0.keras", "1.keras", "2.keras"]


def test_a_published_mark_is_found_in_the_file(key, tmp_path):
    model = dense_model(mark(key))
    write_mark(model, key)
    path = publish(model, tmp_path / "model.keras")
    loaded = keras.saving.load_model(path)
    assert keras_wm.detect(kernel_of(loaded), key).ber == 0
    assert keras_wm.verify(path, key).ber == 0


@pytest.mark.study
def test_a_python_without_keras_wm_loads_published_files_only(key, tmp_path):
    """All files use one process, because it takes seconds to start."""
    script = """
        import json, sys
        sys.modules["keras_wm"] = None
        import keras, numpy as np
        x = np.load("x.npy")
        answers = {}
        for name in sys.argv[1:]:
            try:
                model = keras.saving.load_model(name)
                output = keras.ops.convert_to_numpy(model(x))
                answers[name] = output.tolist()
            except TypeError as error:
                answers[name] = str(error)
        print("ANSWERS", json.dumps(answers))
    """
    x, _ = data()
    np.save(tmp_path / "x.npy", x)
    expected, saved = {}, ["saved.keras", "saved.h5"]
    for name in ("Sequential", "Functional", "nested"):
        model = KINDS[name](mark(key, regularizer="l2"))
        fit_eagerly(model)
        for file, optimizer in (("a.keras", True), ("b.keras", False), ("c.h5", True)):
            path = tmp_path / f"{name}-{file}"
            publish(model, path, include_optimizer=optimizer)
            expected[path.name] = outputs(model, x)
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
