"""Marks in slots: regularizers, attach, and what several marked kernels reveal."""

import warnings

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import BitErrorRate, WatermarkRegularizer, attach
from tests.conftest import fixed_key
from tests.marked_model import with_mark
from tests.models import (
    LAYER,
    UNSEEN_MARGIN,
    dense_model,
    expected_margin_loss,
    fit,
    kernel_of,
    mark,
    number,
    penalty,
)

pytestmark = pytest.mark.backends

SHARED = "same shape .* in the same slot 0"


def two_layers(first=None, second=None):
    """Returns a model with two kernels of one shape, `a` and `b`."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Dense(16, "relu", kernel_regularizer=first, name="a"),
            layers.Dense(16, kernel_regularizer=second, name="b"),
        ]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def test_the_penalty_is_that_of_the_slot(key):
    model = dense_model(mark(key, slot=2, strength=0.5))
    expected = expected_margin_loss(kernel_of(model), key.in_slot(2), UNSEEN_MARGIN)
    assert penalty(model) == pytest.approx(0.5 * expected, rel=1e-5)
    other = expected_margin_loss(kernel_of(model), key, UNSEEN_MARGIN)
    assert expected != pytest.approx(other, rel=1e-3)


def test_attach_takes_a_slot_or_a_key_in_a_slot(key):
    kernel = kernel_of(dense_model())
    regularizers = [
        attach(dense_model(), LAYER, key, slot=2),
        attach(dense_model(), LAYER, key.in_slot(2)),
        WatermarkRegularizer(key, slot=2),
        WatermarkRegularizer(key.in_slot(1), slot=2),
    ]
    penalties = {number(regularizer(kernel)) for regularizer in regularizers}
    assert len(penalties) == 1
    assert {regularizer.slot for regularizer in regularizers} == {2}


def test_a_loaded_model_continues_in_its_slot(key, tmp_path):
    model = dense_model(mark(key, slot=2))
    model.save(tmp_path / "model.keras")
    with keras_wm.keys(key):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    regularizer = loaded.get_layer(LAYER).kernel_regularizer
    assert regularizer.key == key.in_slot(2)
    assert penalty(loaded) == pytest.approx(penalty(model), rel=1e-6)


def test_logs_hold_the_bit_error_rate_in_the_slot(key):
    model = dense_model(mark(key, slot=2))
    logs = fit(model, 1, [BitErrorRate()])
    assert logs["ber"] == [keras_wm.detect(kernel_of(model), key.in_slot(2)).ber]


def test_kernels_of_one_shape_in_one_slot_give_a_warning():
    key = fixed_key(4)
    model = two_layers()
    attach(model, "a", key)
    with pytest.warns(UserWarning, match=f"'a', 'b' .*{SHARED}"):
        attach(model, "b", key)
    shared = WatermarkRegularizer(key)
    trained = two_layers(shared, shared)
    with pytest.warns(UserWarning, match=SHARED):
        trained.fit(
            np.zeros((2, 16)), np.zeros((2, 16)), verbose=0, callbacks=[BitErrorRate()]
        )


def test_other_slots_keys_or_shapes_give_no_warning():
    key = fixed_key(4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for second_mark in (
            {"key": key, "slot": 1},
            {"key": fixed_key(4, owner="Another Ltd")},
            {"key": key.for_recipient("customer-17")},
        ):
            model = two_layers()
            attach(model, "a", key)
            attach(model, "b", **second_mark)
    assert caught == []


def test_marks_of_one_shape_are_only_correlated_in_the_same_slot(rng):
    """The correlation of 4,096 weights exceeds 6 / 64 with a probability of 2e-9."""
    key, kernels = fixed_key(64), rng.normal(size=(2, 64, 64))

    def correlation(*slots):
        marked = [
            with_mark(kernel, key.in_slot(slot), 0.5)
            for kernel, slot in zip(kernels, slots, strict=True)
        ]
        return np.corrcoef(marked[0].ravel(), marked[1].ravel())[0, 1]

    assert abs(correlation(0, 1)) < 6 / 64
    # Half a standard deviation of mark in each kernel: 1 / (1 + 4) of the variance.
    assert correlation(0, 0) == pytest.approx(0.2, abs=6 / 64)
