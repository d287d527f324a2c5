"""attach and detach: on every kind of model, at every moment of its life."""

import copy
import json
import warnings

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import BitErrorRate, attach, detach
from tests.conftest import fixed_key
from tests.models import (
    LAYER,
    compile_model,
    data,
    dense_model,
    expected_ber,
    expected_margin_loss,
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

MODELS = {
    "Sequential": dense_model,
    "Functional": functional_model,
    "subclassed": subclassed_model,
    "nested": nested_model,
}
ROOM = 0.17 * np.sqrt(32 * 64 / 32)


def penalty(model):
    """What the model's regularizers add to its loss."""
    return sum(number(loss) for loss in model.losses)


@pytest.mark.parametrize("name", MODELS)
def test_attach_adds_the_penalty_of_the_equations(key, name):
    model = MODELS[name]()
    before = penalty(model)
    regularizer = attach(model, LAYER, key, strength=0.5)
    assert before == 0
    assert penalty(model) == pytest.approx(
        0.5 * expected_margin_loss(kernel_of(model), key, ROOM), rel=1e-5
    )
    assert regularizer is find_layer(model).kernel.regularizer
    assert regularizer.key is key


@pytest.mark.parametrize("name", MODELS)
def test_attach_after_a_first_fit_embeds_in_the_next(key, name):
    model = MODELS[name]()
    fit(model)  # builds the compiled step, without a mark
    attach(model, LAYER, key, strength=1e-2)
    assert expected_ber(kernel_of(model), key) > 0.1
    fit(model, 13)
    assert expected_ber(kernel_of(model), key) == 0


def test_attach_after_a_first_evaluate_counts_in_the_next(key):
    model = dense_model()
    x, y = data()
    before = model.evaluate(x, y, verbose=0)
    attach(model, LAYER, key, strength=0.5)
    expected = before + 0.5 * expected_margin_loss(kernel_of(model), key, ROOM)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-4)


def test_attach_during_training_embeds_from_the_next_epoch_on(key):
    model = dense_model()

    class AttachLater(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                attach(self.model, LAYER, key, strength=1e-2)

    fit(model, 14, [AttachLater()])
    assert expected_ber(kernel_of(model), key) == 0


def test_detach_during_training_ends_the_penalty(key):
    model = dense_model(mark(key, strength=100.0))

    class DetachSoon(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                detach(self.model)

    losses = fit(model, 2, [DetachSoon()])["loss"]
    assert losses[0] > 100 > 10 > losses[1]


def test_attach_to_a_part_of_a_model_that_was_fitted_embeds_or_is_warned_of(key):
    # The step of the whole was compiled without the penalty, and the part does not
    # know the whole.
    model = nested_model()
    fit(model)
    attach(model.get_layer("middle"), LAYER, key, strength=1e-2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(model, 13, [BitErrorRate()])
    warned = any(f"The mark on layer {LAYER!r}" in str(w.message) for w in caught)
    assert history["ber"][-1] == 0 or warned


def test_attach_works_on_a_model_that_is_not_compiled(key):
    model = dense_model(compiled=False)
    attach(model, LAYER, key)
    assert not model.compiled
    fit(compile_model(model))
    assert penalty(model) > 0


def test_attach_works_on_a_model_that_was_loaded(key, tmp_path):
    model = dense_model()
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    attach(loaded, LAYER, key, strength=1e-2)
    fit(loaded, 13)
    assert expected_ber(kernel_of(loaded), key) == 0


def test_a_layer_may_be_given_itself(key):
    model = nested_model()
    attach(model, find_layer(model), key)
    assert penalty(model) > 0


def test_attach_keeps_the_optimizers_state(key):
    model = dense_model()
    fit(model)
    before = optimizer_variables(model)
    optimizer = model.optimizer
    attach(model, LAYER, key)
    assert model.optimizer is optimizer
    for was, is_ in zip(before, optimizer_variables(model), strict=True):
        np.testing.assert_array_equal(was, is_)
    assert model.compiled


@pytest.mark.parametrize("host", ["l2", lambda w: keras.ops.sum(w) * 0.5])
def test_a_regularizer_that_is_there_goes_on_acting(key, host):
    model = dense_model(host)
    before = penalty(model)
    attach(model, LAYER, key, strength=0.5)
    expected = before + 0.5 * expected_margin_loss(kernel_of(model), key, ROOM)
    assert before != 0
    assert penalty(model) == pytest.approx(expected, rel=1e-5)
    detach(model)
    assert penalty(model) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("name", ["Sequential", "Functional", "nested"])
def test_the_config_never_mentions_what_attach_did(key, name):
    model = MODELS[name]("l2")
    before = json.dumps(model.get_config(), default=str)
    text = model.to_json()
    attach(model, LAYER, key)
    assert json.dumps(model.get_config(), default=str) == before
    assert model.to_json() == text
    assert "keras_wm" not in text
    detach(model)
    assert model.to_json() == text


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_saved_after_attach_needs_no_keras_wm(key, tmp_path, suffix):
    model = functional_model()
    attach(model, LAYER, key)
    fit(model)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    assert b"keras_wm" not in path.read_bytes()
    loaded = keras.saving.load_model(path)
    x, _ = data()
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def lstm(regularizer=None):
    return keras.layers.LSTM(12, kernel_regularizer=regularizer, name="it")


def time_distributed(regularizer=None):
    inner = keras.layers.Dense(24, kernel_regularizer=regularizer, name="inner")
    return keras.layers.TimeDistributed(inner, name="it")


def attention(regularizer=None):
    # Four projections of shapes (20, 2, 20) and (2, 20, 20), or (M, L) = (40, 20).
    layer = keras.layers.MultiHeadAttention(
        2, 20, kernel_regularizer=regularizer, name="it"
    )
    return lambda x: layer(x, x)


SEQUENCE_LAYERS = {"LSTM": lstm, "TimeDistributed": time_distributed, "MHA": attention}


def sequence_model(make_layer, regularizer=None):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3, 20))
    x = make_layer(regularizer)(inputs)
    if len(x.shape) == 3:
        x = keras.layers.GlobalAveragePooling1D()(x)
    return compile_model(keras.Model(inputs, keras.layers.Dense(2)(x)), loss="mse")


def train_on_sequences(model, callbacks=(), epochs=1):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(32, 3, 20)), rng.normal(size=(32, 2))
    return model.fit(
        x, y, 4, epochs=epochs, verbose=0, callbacks=list(callbacks)
    ).history


@pytest.mark.parametrize(
    ("name", "layer"), [("LSTM", "it"), ("TimeDistributed", "it"), ("MHA", "query")]
)
def test_attach_finds_the_kernel_inside_a_layer(name, layer):
    model, key = sequence_model(SEQUENCE_LAYERS[name]), fixed_key(8)
    attach(model, layer, key, strength=0.1)
    assert penalty(model) > 0
    losses = train_on_sequences(model, [BitErrorRate()], 2)["embedding_loss"]
    assert losses[1] < losses[0]
    detach(model)
    assert penalty(model) == 0


def test_attach_does_not_choose_among_several_kernels_inside_a_layer():
    model = sequence_model(attention)
    with pytest.raises(ValueError, match=r"4 kernels inside.*'query', 'key', 'value'"):
        attach(model, "it", fixed_key(8))


@pytest.mark.parametrize("name", SEQUENCE_LAYERS)
def test_a_mark_given_to_the_constructor_lives_without_a_warning(name):
    regularizer = mark(fixed_key(8), strength=0.1)
    model = sequence_model(SEQUENCE_LAYERS[name], regularizer)
    losses = train_on_sequences(model, [BitErrorRate()], 2)["embedding_loss"]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", SEQUENCE_LAYERS)
def test_detach_takes_it_off_a_layer_that_holds_its_kernel_inside(name):
    model = sequence_model(SEQUENCE_LAYERS[name], mark(fixed_key(8)))
    assert penalty(model) > 0
    assert detach(model)
    assert penalty(model) == 0
    assert "keras_wm" not in model.to_json()


def test_both_kernels_of_a_recurrent_layer_can_be_marked():
    model = sequence_model(lstm)
    key = fixed_key(8)
    attach(model, "it", key, strength=1.0)
    one = penalty(model)
    attach(model, "it", key, strength=1.0, variable="recurrent_kernel")
    cell = model.get_layer("it").cell
    recurrent = keras.ops.convert_to_numpy(cell.recurrent_kernel)
    room = 0.17 * np.sqrt(12 * 48 / 8)
    assert penalty(model) - one == pytest.approx(
        expected_margin_loss(recurrent, key, room), rel=1e-4
    )


def test_an_embedding_is_marked_by_its_only_matrix():
    embedding = keras.layers.Embedding(40, 16, name="it")
    model = keras.Sequential([keras.Input((5,)), embedding])
    regularizer = attach(model, "it", fixed_key(8))
    assert embedding.embeddings.regularizer is regularizer


def test_a_variable_that_the_layer_does_not_have_is_refused(key):
    with pytest.raises(ValueError, match=r"'recurrent_kernel'.*It has: 'kernel'"):
        attach(dense_model(), LAYER, key, variable="recurrent_kernel")


def test_an_unknown_layer_is_refused_with_those_there_are(key):
    with pytest.raises(ValueError, match=f"no layer 'wider'.*'{LAYER}'.*'logits'"):
        attach(dense_model(), "wider", key)


def test_a_layer_of_another_model_is_refused(key):
    with pytest.raises(ValueError, match="has no layer"):
        attach(dense_model(), dense_model().get_layer(LAYER), key)


def two_of_a_name():
    inputs = keras.Input((32,))
    parts = [
        keras.Sequential(
            [keras.Input((32,)), keras.layers.Dense(64, name="same")], name=name
        )(inputs)
        for name in "ab"
    ]
    return keras.Model(inputs, keras.layers.Add()(parts))


def test_an_ambiguous_name_is_refused_but_the_layer_is_not(key):
    model = two_of_a_name()
    with pytest.raises(ValueError, match=r"2 layers .* name 'same'"):
        attach(model, "same", key)
    attach(model, model.get_layer("b").get_layer("same"), key)
    assert penalty(model) > 0


def test_a_model_that_is_not_built_is_refused(key):
    model = keras.Sequential([keras.layers.Dense(64, name=LAYER)])
    with pytest.raises(ValueError, match="Build the model first"):
        attach(model, LAYER, key)


def test_a_layer_without_a_kernel_is_refused(key):
    model = keras.Sequential(
        [keras.Input((32,)), keras.layers.BatchNormalization(name="norm")]
    )
    with pytest.raises(ValueError, match="'norm' has no variable 'kernel' of rank 2"):
        attach(model, "norm", key)


def test_too_many_bits_are_refused_and_leave_the_model_as_it_was():
    model = dense_model("l2")
    host = find_layer(model).kernel.regularizer
    with pytest.raises(ValueError, match=r"T=40 .*M=32 .*T <= 32"):
        attach(model, LAYER, fixed_key(40, "direct"))
    assert find_layer(model).kernel.regularizer is host


def test_bad_arguments_leave_the_model_as_it_was(key):
    model = dense_model("l2")
    host = find_layer(model).kernel.regularizer
    with pytest.raises(ValueError, match="strength=-1"):
        attach(model, LAYER, key, strength=-1)
    with pytest.raises(TypeError, match="Expected a WatermarkKey"):
        attach(model, LAYER, "my key")
    assert find_layer(model).kernel.regularizer is host


@pytest.mark.parametrize("route", ["attach", "constructor"])
def test_a_second_mark_on_a_kernel_is_refused(key, route):
    model = dense_model(mark(key) if route == "constructor" else None)
    if route == "attach":
        attach(model, LAYER, key)
    with pytest.raises(ValueError, match=r"carries a mark already.*detach"):
        attach(model, LAYER, fixed_key(16))


@pytest.mark.parametrize("wrong", [None, "model.keras", keras.layers.Dense(3)])
def test_what_is_not_a_model_is_refused(key, wrong):
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        attach(wrong, LAYER, key)
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        detach(wrong)


@pytest.mark.parametrize("whole", [True, False])
def test_a_frozen_layer_is_warned_of(key, whole):
    model = dense_model()
    (model if whole else find_layer(model)).trainable = False
    with pytest.warns(UserWarning, match=f"'{LAYER}' will not be trained: .*frozen"):
        attach(model, LAYER, key)


@pytest.mark.filterwarnings("ignore:A WatermarkRegularizer was rebuilt without its key")
def test_what_was_loaded_without_its_key_can_be_marked_again(key, tmp_path):
    # The warning at loading sends its reader to attach.
    model = dense_model(mark(key, regularizer="l2"), compiled=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    attach(loaded, LAYER, key, strength=1e-2)
    assert penalty(loaded) == pytest.approx(penalty(model), rel=1e-5)


def test_detach_names_the_layers_and_leaves_the_weights(key):
    model = nested_model(mark(key))
    attach(model, model.layers[-1], fixed_key(4), margin=1.0)
    before = kernel_of(model)
    assert sorted(detach(model)) == sorted([LAYER, model.layers[-1].name])
    np.testing.assert_array_equal(kernel_of(model), before)
    assert detach(model) == []


@pytest.mark.parametrize("name", MODELS)
def test_detach_takes_off_the_constructors_mark_in_config_and_loss(key, name):
    model = MODELS[name](mark(key, regularizer="l2"))
    kernel = kernel_of(model).astype(np.float64)
    assert detach(model) == [LAYER]
    assert penalty(model) == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-5)
    config = keras.saving.serialize_keras_object(find_layer(model))
    assert config["config"]["kernel_regularizer"]["class_name"] == "L2"
    assert "keras_wm" not in str(config)


def test_detach_after_a_fit_really_lowers_the_next_loss(key):
    model = dense_model(mark(key, strength=100.0))
    with_mark = fit(model)["loss"][0]
    x, y = data()
    evaluated = model.evaluate(x, y, verbose=0)
    detach(model)
    assert evaluated > 100 > 10 > model.evaluate(x, y, verbose=0)
    assert with_mark > 100 > 10 > fit(model)["loss"][0]


class NoConfig(keras.layers.Layer):
    """A layer of one's own without `get_config`."""

    def __init__(self, units, kernel_regularizer=None, **arguments):
        super().__init__(**arguments)
        self.units, self.penalty = units, kernel_regularizer

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), regularizer=self.penalty
        )

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)


def test_detach_reaches_a_layer_that_holds_the_regularizer_by_another_name(key):
    layer = NoConfig(64, kernel_regularizer=mark(key, regularizer="l2"), name="it")
    model = keras.Sequential([keras.Input((32,)), layer])
    assert detach(model) == ["it"]
    kernel = kernel_of(model, "it").astype(np.float64)
    assert penalty(model) == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-5)
    assert isinstance(layer.penalty, keras.regularizers.L2)


def test_a_shared_layer_counts_once(key):
    shared = keras.layers.Dense(64, name=LAYER, kernel_regularizer=mark(key))
    one, two = keras.Input((32,)), keras.Input((32,))
    model = keras.Model([one, two], keras.layers.Add()([shared(one), shared(two)]))
    assert len(model.losses) == 1
    assert detach(model) == [LAYER]


def test_a_copy_of_a_model_has_no_mark_of_attach(key):
    model = dense_model(compiled=False)
    attach(model, LAYER, key)
    assert penalty(copy.deepcopy(model)) == 0
    assert penalty(keras.models.clone_model(model)) == 0
    assert penalty(model) > 0


def test_attach_is_verified_in_the_kernel_by_the_key(key):
    model = dense_model()
    attach(model, LAYER, key, strength=1e-2)
    fit(model, 13)
    detection = keras_wm.detect(kernel_of(model), key)
    assert detection.ber == 0
    # By chance with probability 1e-6, and the seed is fixed.
    assert detection.log10_p < -6
