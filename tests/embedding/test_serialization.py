"""What is saved, what is found again, and what never leaves the process."""

import copy
import json
import pickle
import subprocess
import sys
import textwrap
import warnings
import zipfile

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import BitErrorRate, WatermarkKey, WatermarkRegularizer, publish
from tests.conftest import FIXED_SECRET, fixed_key
from tests.models import (
    FEATURES,
    UNITS,
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
)

pytestmark = pytest.mark.backends

INERT = "rebuilt without its key"
OWNER = "Nobody else is called that GmbH"


def kernel(shape=(FEATURES, UNITS)):
    return np.random.default_rng(3).normal(size=shape).astype("float32")


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
    }


def test_the_config_is_plain_json(key):
    config = mark(key, strength=np.float32(0.5), margin=np.float64(1)).get_config()
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize("loss", ["margin", "crossentropy"])
def test_a_config_gives_the_same_regularizer_where_the_key_is_at_hand(key, loss):
    regularizer = WatermarkRegularizer(key, loss, 0.5, regularizer="l2")
    with keras_wm.keys(key):
        twin = WatermarkRegularizer.from_config(regularizer.get_config())
    assert twin.key is key
    assert number(twin(kernel())) == number(regularizer(kernel()))
    assert twin.get_config() == regularizer.get_config()


def test_without_its_key_only_the_hosts_penalty_remains(key):
    regularizer = mark(key, regularizer="l2")
    with pytest.warns(UserWarning, match=f"{INERT}.*{key.commitment[:8]}"):
        twin = WatermarkRegularizer.from_config(regularizer.get_config())
    assert twin.key is None
    assert "inert" in repr(twin)
    host = keras.regularizers.L2(0.01)
    assert number(twin(kernel())) == pytest.approx(number(host(kernel())))
    assert twin.get_config() == regularizer.get_config()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_without_key_and_host_the_penalty_is_zero(key, dtype):
    with pytest.warns(UserWarning, match=INERT):
        twin = WatermarkRegularizer.from_config(mark(key).get_config())
    x = keras.ops.cast(kernel(), dtype)
    assert number(twin(x)) == 0
    assert keras.backend.standardize_dtype(twin(x).dtype) == "float32"


class Broken(keras.regularizers.Regularizer):
    """A host's regularizer whose config cannot be had."""

    def __call__(self, x):
        return 0.5 * keras.ops.sum(x)

    def get_config(self):
        raise RuntimeError("no config today")


class NotPlain(Broken):
    """A host's regularizer whose config cannot be written."""

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
def test_no_host_keeps_a_model_from_being_saved(key, tmp_path, name, suffix):
    model = dense_model(mark(key, regularizer=HOSTS[name]), compiled=False)
    path = tmp_path / f"model{suffix}"
    dense_model().save(path)
    model.save(path)
    if name == "lambda":
        # Keras writes its code and refuses to load it, as it would without a mark.
        assert zipfile.is_zipfile(path) or path.read_bytes().startswith(b"\x89HDF")
        return
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(kernel_of(loaded), kernel_of(model))


@pytest.mark.parametrize("name", HOSTS)
def test_get_config_does_not_raise_where_warnings_are_errors(key, name):
    # Keras opens its target first: an error would empty a good file.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = mark(key, regularizer=HOSTS[name]).get_config()
    assert config["commitment"] == key.commitment


def test_a_host_that_is_lost_in_the_file_is_warned_of(key, tmp_path):
    with pytest.warns(UserWarning, match="cannot be serialized .*missing from the"):
        dense_model(mark(key, regularizer=Broken())).save(tmp_path / "model.keras")


# The scope.


def test_the_scope_ends_with_the_block_also_by_an_error(key):
    config = mark(key).get_config()
    with pytest.raises(RuntimeError, match="inside"), keras_wm.keys(key):
        raise RuntimeError("inside")
    with pytest.warns(UserWarning, match=INERT):
        assert WatermarkRegularizer.from_config(config).key is None


def test_scopes_nest(key):
    other = fixed_key(8)
    configs = [mark(key).get_config(), mark(other).get_config()]
    with keras_wm.keys(key):
        with keras_wm.keys(other):
            inner = [WatermarkRegularizer.from_config(config) for config in configs]
        assert WatermarkRegularizer.from_config(configs[0]).key is key
        with pytest.warns(UserWarning, match=INERT):
            WatermarkRegularizer.from_config(configs[1])
    assert [regularizer.key for regularizer in inner] == [key, other]


def test_several_keys_may_be_offered_at_once(key):
    other = fixed_key(8)
    with keras_wm.keys(other, key, fixed_key(16)):
        for one in (key, other):
            twin = WatermarkRegularizer.from_config(mark(one).get_config())
            assert twin.key is one


@pytest.mark.parametrize(
    "stranger",
    [
        fixed_key(secret=b"\x01" * 32),
        fixed_key(owner="Another Ltd"),
        fixed_key(31),
        fixed_key(projection="diff"),
        fixed_key(filters="mean"),
        fixed_key(groups=8),
    ],
    ids=["secret", "owner", "bits", "projection", "filters", "groups"],
)
def test_another_key_at_hand_does_not_help(key, stranger):
    with keras_wm.keys(stranger), pytest.warns(UserWarning, match=INERT):
        twin = WatermarkRegularizer.from_config(mark(key).get_config())
    assert twin.key is None


def test_what_is_not_a_key_is_refused(key):
    refused = pytest.raises(TypeError, match="Expected keys of type WatermarkKey")
    with refused, keras_wm.keys(key, "key.json"):
        pass


def test_an_explicit_key_is_found_again_too():
    rng = np.random.default_rng(0)
    key = WatermarkKey.from_arrays(rng.normal(size=(8, 32)), rng.integers(0, 2, 8))
    with keras_wm.keys(key):
        twin = WatermarkRegularizer.from_config(mark(key).get_config())
    assert twin.key is key


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
    fit(model)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(path)
    assert [number(loss) for loss in loaded.losses] == [
        pytest.approx(number(loss), rel=1e-6) for loss in model.losses
    ]


def test_a_model_that_is_loaded_with_its_key_goes_on_marking(key, tmp_path):
    undisturbed, model = dense_model(mark(key)), dense_model(mark(key))
    fit(undisturbed, 2)
    fit(model)
    model.save(tmp_path / "model.keras")
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    fit(loaded)
    np.testing.assert_allclose(
        kernel_of(loaded), kernel_of(undisturbed), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_model_that_is_loaded_without_its_key_works(key, tmp_path, suffix):
    model = dense_model(mark(key))
    fit(model)
    model.save(tmp_path / f"model{suffix}")
    with pytest.warns(UserWarning, match=INERT):
        loaded = keras.saving.load_model(tmp_path / f"model{suffix}")
    x, _ = data()
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    # Keras 3.15 loads from .h5 an optimizer that cannot go on.
    fit(compile_model(loaded))


def test_saving_a_model_that_was_loaded_without_its_key_keeps_the_commitment(
    key, tmp_path
):
    fit(model := dense_model(mark(key)))
    model.save(tmp_path / "a.keras")
    with pytest.warns(UserWarning, match=INERT):
        keras.saving.load_model(tmp_path / "a.keras").save(tmp_path / "b.keras")
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(tmp_path / "b.keras")
    assert find_layer(loaded).kernel.regularizer.key is key


def test_a_clone_inside_the_scope_goes_on_marking(key):
    model = dense_model(mark(key))
    with keras_wm.keys(key):
        clone = compile_model(keras.models.clone_model(model))
    fit(clone, 13)
    assert expected_ber(kernel_of(clone), key) == 0


def test_a_clone_outside_the_scope_is_inert_and_warned_of(key):
    with pytest.warns(UserWarning, match=INERT):
        clone = keras.models.clone_model(dense_model(mark(key)))
    assert [number(loss) for loss in clone.losses] == [0]


def test_a_bidirectional_layer_is_marked_inside_the_scope(key):
    # Keras makes the two directions from the layer's config.
    with keras_wm.keys(key):
        layer = keras.layers.Bidirectional(
            keras.layers.LSTM(16, kernel_regularizer=mark(key))
        )
    layer.build((None, 5, FEATURES))
    assert len(layer.losses) == 2
    assert all(number(loss) > 0 for loss in layer.losses)


# Copies.


@pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy])
def test_a_copy_has_the_key_and_the_same_value(key, make_copy):
    regularizer = mark(key, regularizer="l2", margin=1.0)
    twin = make_copy(regularizer)
    assert twin is not regularizer
    assert twin.key is key
    assert number(twin(kernel())) == number(regularizer(kernel()))
    assert twin.get_config() == regularizer.get_config()


def test_a_deep_copy_of_an_inert_regularizer_is_inert(key):
    with pytest.warns(UserWarning, match=INERT):
        twin = WatermarkRegularizer.from_config(mark(key).get_config())
    assert copy.deepcopy(twin).key is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_finds_its_key_in_the_scope_and_carries_no_secret(protocol):
    key = fixed_key(owner=OWNER)
    regularizer = mark(key, regularizer="l2")
    number(regularizer(kernel()))  # makes the constants
    pickled = pickle.dumps(regularizer, protocol)
    assert_no_secret_in(pickled, key)
    with keras_wm.keys(key):
        twin = pickle.loads(pickled)  # noqa: S301
    assert number(twin(kernel())) == number(regularizer(kernel()))
    with pytest.warns(UserWarning, match=INERT):
        assert pickle.loads(pickled).key is None  # noqa: S301


def test_a_key_is_not_pickled(key):
    with pytest.raises(TypeError, match="a pickle would contain the secret"):
        pickle.dumps(key)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(key._source.secret)


def test_a_pickled_model_finds_its_key_in_the_scope(key):
    model = dense_model(mark(key))
    fit(model)
    pickled = pickle.dumps(model)
    assert_no_secret_in(pickled, key)
    with keras_wm.keys(key):
        twin = pickle.loads(pickled)  # noqa: S301
    assert find_layer(twin).kernel.regularizer.key is key


# What never leaves the process.


def traces_of_the_matrix(key):
    """X as it might be stored: rows or columns, either sign, either precision."""
    x = key.matrix(FEATURES)
    signs = 2.0 * key.message[:, None] - 1.0
    for matrix in (x, -x, signs * x, -signs * x):
        for dtype in ("float32", "float64"):
            stored = matrix.astype(dtype)
            for lines in (stored, stored.T):
                for line in lines:
                    yield line[:3].tobytes()
    for value in x[:3, :3].ravel():
        yield repr(abs(float(value)))[:9].encode()


def traces_of_the_weights(key):
    """The filter weights as they might be stored, rows or columns."""
    weights = key.filter_weights(UNITS)
    for dtype in ("int8", "float32", "float64"):
        for lines in (weights, -weights, weights.T, -weights.T):
            for line in lines.astype(dtype):
                yield line[:16].tobytes()


def assert_no_secret_in(content, key):
    assert FIXED_SECRET not in content
    assert FIXED_SECRET.hex().encode() not in content.lower()
    assert key.owner.encode() not in content
    assert key.owner.encode("utf-16-le") not in content


@pytest.fixture(scope="module")
def leaky():
    """The key of a model that writes all that a model can write."""
    return fixed_key(owner=OWNER)


@pytest.fixture(scope="module")
def written(leaky, tmp_path_factory):
    """The contents of all those files, those of archives unpacked."""
    folder = tmp_path_factory.mktemp("written")
    model = dense_model(mark(leaky, regularizer="l2"))
    checkpoint = keras.callbacks.ModelCheckpoint
    fit(
        model,
        2,
        [
            BitErrorRate(log_dir=folder / "marks"),
            keras.callbacks.TensorBoard(
                folder / "logs", histogram_freq=1, write_graph=True, write_images=True
            ),
            keras.callbacks.CSVLogger(folder / "log.csv"),
            keras.callbacks.BackupAndRestore(
                folder / "backup", delete_checkpoint=False
            ),
            checkpoint(folder / "checkpoint.keras"),
            checkpoint(folder / "checkpoint.weights.h5", save_weights_only=True),
        ],
    )
    model.save(folder / "saved.keras")
    model.save(folder / "saved.h5")
    model.save_weights(folder / "saved.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    for suffix in (".keras", ".h5", ".weights.h5"):
        publish(model, folder / f"published{suffix}", include_optimizer=True)
    if keras.backend.backend() == "tensorflow":
        model.export(folder / "exported", verbose=False)
    contents = {}
    for path in filter(lambda path: path.is_file(), folder.rglob("*")):
        name = str(path.relative_to(folder))
        contents[name] = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    contents[f"{name}/{member}"] = archive.read(member)
    return model, contents


def test_all_kinds_of_files_were_written(written):
    _, contents = written
    names = "\n".join(contents)
    for part in ("marks/events", "logs/train/events", "checkpoint.keras/config.json"):
        assert part in names
    assert len(contents) >= 20


def test_neither_secret_nor_owner_is_in_any_file(written, leaky):
    for content in written[1].values():
        assert_no_secret_in(content, leaky)


def test_no_row_of_x_and_no_filter_weights_are_in_any_file(written, leaky):
    traces = {*traces_of_the_matrix(leaky), *traces_of_the_weights(leaky)}
    for name, content in written[1].items():
        found = [trace for trace in traces if trace in content]
        assert not found, f"{len(found)} pieces of the key are in {name}"


def test_the_search_would_find_them(leaky):
    x = leaky.matrix(FEATURES)
    stored = (x.T * (2.0 * leaky.message - 1.0)).astype("float32").tobytes()
    assert any(trace in stored for trace in traces_of_the_matrix(leaky))
    weights = leaky.filter_weights(UNITS).astype("float32").T.copy().tobytes()
    assert any(trace in weights for trace in traces_of_the_weights(leaky))


def test_the_contents_that_were_searched_are_those_of_the_model(written, leaky):
    model, contents = written
    weights = kernel_of(model).tobytes()
    assert weights in contents["saved.keras/model.weights.h5"]
    assert weights in contents["saved.h5"]
    assert leaky.commitment.encode() in contents["saved.keras/config.json"]


# Other processes.


def test_a_fresh_process_needs_only_what_the_documentation_shows(key, tmp_path):
    """One process for all claims: it costs seconds to start."""
    model = dense_model(mark(key))
    fit(model)
    model.save(tmp_path / "model.keras")
    key.save(tmp_path / "owner.key")
    script = """
        import json, warnings
        warnings.simplefilter("ignore")
        import keras, keras_wm

        def loaded():
            try:
                model = keras.saving.load_model("model.keras")
            except TypeError as error:
                return "Keras cannot load it"
            return "marking" if model.layers[0].kernel_regularizer.key else "inert"

        key = keras_wm.WatermarkKey.load("owner.key")
        with keras_wm.keys(key):
            inside = loaded()
        print("ANSWERS", json.dumps([inside, loaded()]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    inside, outside = json.loads(done.stdout.split("ANSWERS", 1)[1])
    assert inside == "marking"
    assert outside == "inert"
