"""penalty and measure: marks in training loops that are not Keras's own."""

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, measure, penalty
from tests.models import (
    UNSEEN_MARGIN,
    dense_model,
    expected_ber,
    expected_margin_loss,
    expected_scores,
    find_layer,
    fit_eagerly,
    kernel_of,
    mark,
    nested_model,
    number,
    write_mark,
)

pytestmark = pytest.mark.backends


def test_the_penalty_is_that_of_the_mark_without_the_hosts_own(key):
    model = nested_model(mark(key, strength=0.1, regularizer="l2"))
    expected = 0.1 * expected_margin_loss(kernel_of(model), key, UNSEEN_MARGIN)
    assert number(penalty(model)) == pytest.approx(expected, rel=1e-4)


def test_a_model_without_marks_has_no_penalty():
    assert number(penalty(dense_model())) == 0


def test_a_frozen_mark_has_no_penalty(key):
    model = dense_model(mark(key))
    find_layer(model).trainable = False
    assert number(penalty(model)) == 0


def test_the_penalty_of_given_values_is_that_of_a_model_with_them(key):
    model = dense_model(mark(key))
    values = [keras.ops.convert_to_tensor(v) * 1.0 for v in model.trainable_variables]
    expected = number(penalty(model))
    find_layer(model).kernel.assign(np.zeros_like(kernel_of(model)))
    assert number(penalty(model, values)) == pytest.approx(expected, rel=1e-6)
    assert number(penalty(model)) != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("function", [penalty, measure])
def test_a_wrong_number_of_values_is_refused(function, key):
    model = dense_model(mark(key))
    with pytest.raises(ValueError, match=r"values of the 4 trainable .* 1 values"):
        function(model, [kernel_of(model)])


@pytest.mark.parametrize("function", [penalty, measure])
def test_something_else_than_a_model_is_refused(function):
    with pytest.raises(TypeError, match=r"Expected a keras\.Model"):
        function("model.keras")


def test_measure_returns_the_figures_of_the_equations(key):
    model = dense_model(mark(key))
    z = expected_scores(kernel_of(model), key)
    figures = measure(model)
    assert figures["ber"] == pytest.approx(expected_ber(kernel_of(model), key))
    assert figures["z_min"] == pytest.approx(z.min(), rel=1e-5)
    assert figures["z_mean"] == pytest.approx(z.mean(), rel=1e-5)


def test_measure_returns_what_the_callback_logs(key):
    model = dense_model(mark(key, strength=1e-3))
    history = fit_eagerly(model, 2, [BitErrorRate()])
    logged = {name: history[name][-1] for name in measure(model)}
    assert measure(model) == pytest.approx(logged)


def test_measure_sees_given_values(key):
    model = dense_model(mark(key))
    write_mark(model, key)
    values = [keras.ops.convert_to_tensor(v) * 1.0 for v in model.trainable_variables]
    find_layer(model).kernel.assign(kernel_of(model)[::-1])
    assert measure(model, values)["ber"] == 0
    assert measure(model)["ber"] > 0


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX's training step")
def test_a_step_that_asks_the_model_itself_for_penalties_is_told_what_to_do(key):
    class Own(keras.Sequential):
        def train_step(self, state, data):
            return {"loss": sum(self.losses)}, state

    model = Own(
        [keras.Input((4,)), keras.layers.Dense(4096, kernel_regularizer=mark(key))]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(
        RuntimeError, match=r"has no value.*return_losses=True.*penalty"
    ):
        model.fit(np.zeros((4, 4)), np.zeros((4, 4096)), verbose=0)
