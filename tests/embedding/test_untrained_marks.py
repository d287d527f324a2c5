"""Marks that are not being trained: BitErrorRate warns of them."""

import math

import keras
import pytest

from keras_wm import BitErrorRate, attach, keys
from tests.models import (
    LAYER,
    compile_model,
    dense_model,
    expected_ber,
    find_layer,
    fit_eagerly,
    kernel_of,
    key_not_found,
    mark,
)

pytestmark = pytest.mark.backends

KEY_NOT_LOADED = f"{LAYER!r} is not being trained: its key was not loaded"


@pytest.fixture
def model(key):
    """A marked model that a test may change."""
    return dense_model(mark(key))


def test_a_frozen_mark_is_warned_of_and_still_measured(model, key):
    find_layer(model).trainable = False
    compile_model(model)
    with pytest.warns(UserWarning, match=f"{LAYER!r} is not being trained: .*frozen"):
        history = fit_eagerly(model, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]


def test_a_mark_that_was_loaded_without_its_key_is_warned_of(model, tmp_path):
    model.save(tmp_path / "model.keras")
    with key_not_found():
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match=KEY_NOT_LOADED):
        history = fit_eagerly(loaded, 1, [BitErrorRate()])
    assert math.isnan(history["ber"][0])


def test_a_mark_that_was_loaded_with_its_key_is_not_warned_of(model, key, tmp_path):
    model.save(tmp_path / "model.keras")
    with keys(key):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    history = fit_eagerly(loaded, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(loaded), key))]


def test_a_mark_that_was_cloned_without_its_key_is_warned_of(model):
    with key_not_found():
        clone = compile_model(keras.models.clone_model(model))
    with pytest.warns(UserWarning, match=KEY_NOT_LOADED):
        fit_eagerly(clone, 1, [BitErrorRate()])


def test_a_clone_without_the_regularizer_of_attach_is_warned_of(key):
    model = dense_model()
    attach(model, LAYER, key)
    clone = compile_model(keras.models.clone_model(model))
    with pytest.warns(UserWarning, match="found no mark"):
        fit_eagerly(clone, 1, [BitErrorRate()])


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_a_quantized_mark_is_warned_of(model):
    model.quantize("int8")
    compile_model(model)
    with pytest.warns(
        UserWarning, match=f"{LAYER!r} is not being trained: .*quantized"
    ):
        fit_eagerly(model, 1, [BitErrorRate()])
