"""attach: on every kind of model, at every moment of its life."""

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
    MARKING_EPOCHS,
    MODELS,
    UNSEEN_MARGIN,
    compile_model,
    data,
    dense_model,
    expected_ber,
    expected_crossentropy,
    expected_margin_loss,
    find_layer,
    fit,
    fit_eagerly,
    functional_model,
    kernel_of,
    mark,
    nested_model,
    optimizer_variables,
    outputs,
    penalty,
)

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("name", MODELS)
def test_attach_adds_the_penalty_of_the_equations(key, name):
    model = MODELS[name]()
    before = penalty(model)
    regularizer = attach(model, LAYER, key, strength=0.5)
    assert before == 0
    assert penalty(model) == pytest.approx(
        0.5 * expected_margin_loss(kernel_of(model), key, UNSEEN_MARGIN), rel=1e-5
    )
    assert regularizer is find_layer(model).kernel.regularizer
    assert regularizer.key is key


def test_attach_after_a_first_fit_embeds_in_the_next(key):
    model = dense_model()
    fit(model)  # builds the compiled step, without a mark
    attach(model, LAYER, key, strength=1e-2)
    assert expected_ber(kernel_of(model), key) > 0.1
    fit(model, MARKING_EPOCHS)
    detection = keras_wm.detect(kernel_of(model), key)
    assert detection.ber == expected_ber(kernel_of(model), key) == 0
    # By chance with probability 1e-6, and the seed is fixed.
    assert detection.log10_p < -6


@pytest.mark.parametrize("name", ["Functional", "subclassed", "nested"])
def test_attach_after_a_first_fit_counts_in_the_next_loss(key, name):
    model = compile_model(MODELS[name](), keras.optimizers.SGD(0.0))
    before = fit(model, batch_size=64)["loss"][0]
    # The cross-entropy is traced faster than the margin.
    attach(model, LAYER, key, loss="crossentropy", strength=0.5)
    expected = before + 0.5 * expected_crossentropy(kernel_of(model), key)
    assert fit(model, batch_size=64)["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_attach_after_a_first_evaluate_counts_in_the_next(key):
    model = dense_model()
    x, y = data()
    before = model.evaluate(x, y, verbose=0)
    attach(model, LAYER, key, strength=0.5)
    loss = expected_margin_loss(kernel_of(model), key, UNSEEN_MARGIN)
    expected = before + 0.5 * loss
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-4)


def test_attach_during_training_embeds_from_the_next_epoch_on(key):
    model = dense_model()

    class AttachLater(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                attach(self.model, LAYER, key, strength=1e-2)

    fit(model, 1 + MARKING_EPOCHS, [AttachLater()])
    assert expected_ber(kernel_of(model), key) == 0


def test_attach_to_a_part_of_a_model_that_was_fitted_embeds_or_is_warned_of(key):
    # The step of the whole was compiled without the penalty, and the part has no
    # reference to the whole.
    model = nested_model()
    fit(model)
    attach(model.get_layer("middle"), LAYER, key, strength=1e-2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(model, MARKING_EPOCHS, [BitErrorRate()])
    warned = any(f"The mark on layer {LAYER!r}" in str(w.message) for w in caught)
    assert history["ber"][-1] == 0 or warned


def test_attach_works_on_a_model_that_is_not_compiled(key):
    model = dense_model(compiled=False)
    attach(model, LAYER, key)
    assert not model.compiled
    fit_eagerly(compile_model(model))
    assert penalty(model) > 0


def test_attach_works_on_a_model_that_was_loaded(key, tmp_path):
    model = dense_model()
    fit_eagerly(model)
    model.save(tmp_path / "model.keras")
    with keras_wm.keys():
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    attach(loaded, LAYER, key, strength=1e-2)
    before = expected_ber(kernel_of(loaded), key)
    fit_eagerly(loaded, 4)
    assert expected_ber(kernel_of(loaded), key) < before


def test_a_layer_can_be_given_itself(key):
    model = nested_model()
    attach(model, find_layer(model), key)
    assert penalty(model) > 0


def test_attach_keeps_the_optimizers_state(key):
    model = dense_model(optimizer="adam")
    fit_eagerly(model)
    before = optimizer_variables(model)
    optimizer = model.optimizer
    attach(model, LAYER, key)
    assert model.optimizer is optimizer
    for was, is_ in zip(before, optimizer_variables(model), strict=True):
        np.testing.assert_array_equal(was, is_)
    assert model.compiled


@pytest.mark.parametrize("host", ["l2", lambda w: keras.ops.sum(w) * 0.5])
def test_an_existing_regularizer_remains_active(key, host):
    try:
        model = dense_model(host)
    except ValueError:
        pytest.skip("this version of Keras takes no function as a regularizer")
    before = penalty(model)
    attach(model, LAYER, key, strength=0.5)
    loss = expected_margin_loss(kernel_of(model), key, UNSEEN_MARGIN)
    assert before != 0
    assert penalty(model) == pytest.approx(before + 0.5 * loss, rel=1e-5)
    detach(model)
    assert penalty(model) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("name", ["Sequential", "Functional", "nested"])
def test_the_config_never_mentions_the_regularizer_of_attach(key, name):
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
    path = tmp_path / f"model{suffix}"
    model.save(path)
    assert b"keras_wm" not in path.read_bytes()
    loaded = keras.saving.load_model(path)
    x, _ = data()
    np.testing.assert_array_equal(outputs(loaded, x), outputs(model, x))


def test_an_embedding_is_marked_by_its_only_matrix():
    embedding = keras.layers.Embedding(40, 16, name="it")
    model = keras.Sequential([keras.Input((5,)), embedding])
    regularizer = attach(model, "it", fixed_key(8))
    assert embedding.embeddings.regularizer is regularizer


def test_a_model_loaded_without_its_key_can_be_marked_again(key, tmp_path):
    model = dense_model(mark(key, regularizer="l2"), compiled=False)
    model.save(tmp_path / "model.keras")
    with keras_wm.keys():
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    attach(loaded, LAYER, key, strength=1e-2)
    assert penalty(loaded) == pytest.approx(penalty(model), rel=1e-5)


def test_a_copy_of_a_model_has_no_mark_of_attach(key):
    model = dense_model(compiled=False)
    attach(model, LAYER, key)
    assert penalty(copy.deepcopy(model)) == 0
    assert penalty(keras.models.clone_model(model)) == 0
    assert penalty(model) > 0


@pytest.mark.parametrize("whole", [True, False])
def test_a_frozen_layer_is_warned_of(key, whole):
    model = dense_model()
    (model if whole else find_layer(model)).trainable = False
    with pytest.warns(UserWarning, match=f"'{LAYER}' will not be trained: .*frozen"):
        attach(model, LAYER, key)


# Errors.


def test_a_variable_that_the_layer_does_not_have_is_refused(key):
    with pytest.raises(ValueError, match=r"'recurrent_kernel'.*It has: 'kernel'"):
        attach(dense_model(), LAYER, key, variable="recurrent_kernel")


def test_an_unknown_layer_is_refused_with_a_list_of_the_layers(key):
    with pytest.raises(ValueError, match=f"no layer 'wider'.*'{LAYER}'.*'logits'"):
        attach(dense_model(), "wider", key)


def test_a_layer_of_another_model_is_refused(key):
    with pytest.raises(ValueError, match="has no layer"):
        attach(dense_model(), dense_model().get_layer(LAYER), key)


def test_an_ambiguous_name_is_refused_but_the_layer_is_not(key):
    inputs = keras.Input((32,))
    parts = [
        keras.Sequential(
            [keras.Input((32,)), keras.layers.Dense(64, name="same")], name=name
        )(inputs)
        for name in "ab"
    ]
    model = keras.Model(inputs, keras.layers.Add()(parts))
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


def test_too_many_bits_are_refused_and_leave_the_model_unchanged():
    model = dense_model("l2")
    host = find_layer(model).kernel.regularizer
    with pytest.raises(ValueError, match=r"T=40 .*M=32 .*T <= 32"):
        attach(model, LAYER, fixed_key(40, "direct"))
    assert find_layer(model).kernel.regularizer is host


def test_invalid_arguments_leave_the_model_unchanged(key):
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
    with pytest.raises(ValueError, match=r"already carries a mark.*detach"):
        attach(model, LAYER, fixed_key(16))


def test_an_object_that_is_not_a_model_is_refused(key):
    for wrong in (None, "model.keras", keras.layers.Dense(3)):
        with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
            attach(wrong, LAYER, key)
        with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
            detach(wrong)
