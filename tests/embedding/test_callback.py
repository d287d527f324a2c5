"""BitErrorRate: the values that it reports, and the marks that it finds."""

import itertools
import json
import math

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, WatermarkKey
from tests.conftest import fixed_key
from tests.embedding.recorder import VALUES, Recorder
from tests.models import (
    FEATURES,
    LAYER,
    UNITS,
    UNSEEN_MARGIN,
    compile_model,
    dense_model,
    expected_ber,
    expected_crossentropy,
    expected_margin_loss,
    expected_scores,
    find_layer,
    fit,
    fit_eagerly,
    kernel_of,
    mark,
    nested_model,
    subclassed_model,
)

pytestmark = pytest.mark.backends


def test_the_values_are_those_of_the_equations(model, key):
    recorder = Recorder()
    history = fit(model, 3, [recorder, BitErrorRate()])
    for epoch, kernel in enumerate(recorder.kernels):
        scores = expected_scores(kernel, key)
        assert history["ber"][epoch] == pytest.approx(expected_ber(kernel, key))
        assert history["z_min"][epoch] == pytest.approx(scores.min(), abs=1e-6)
        assert history["z_mean"][epoch] == pytest.approx(scores.mean(), abs=1e-6)
        per_bit = expected_margin_loss(kernel, key, UNSEEN_MARGIN) / 32
        assert history["embedding_loss"][epoch] == pytest.approx(per_bit, rel=1e-4)


def test_the_embedding_loss_of_crossentropy_is_the_papers_per_bit(key):
    model = dense_model(mark(key, loss="crossentropy"))
    history = fit_eagerly(model, 1, [BitErrorRate()])
    per_bit = expected_crossentropy(kernel_of(model), key) / 32
    assert history["embedding_loss"] == [pytest.approx(per_bit, rel=1e-4)]


def test_the_values_of_an_explicit_key_are_those_of_the_equations():
    rng = np.random.default_rng(0)
    key = WatermarkKey.from_arrays(rng.normal(size=(8, 32)), rng.integers(0, 2, 8))
    model = dense_model(mark(key))
    history = fit_eagerly(model, 1, [BitErrorRate()])
    kernel = kernel_of(model)
    assert history["ber"] == [pytest.approx(expected_ber(kernel, key))]
    assert history["z_min"] == [pytest.approx(expected_scores(kernel, key).min())]


def test_every_value_is_a_python_float(model):
    history = fit(model, 2, [BitErrorRate()])
    assert json.loads(json.dumps(history)) == history
    assert {type(value) for name in VALUES for value in history[name]} == {float}


def test_every_third_epoch_is_measured_and_repeated_in_between(model, key):
    recorder = Recorder()
    history = fit(model, 6, [BitErrorRate(every=3), recorder])
    z = [expected_scores(kernel, key).mean() for kernel in recorder.kernels]
    # The last epoch is measured in any case.
    expected = [z[0]] * 3 + [z[3]] * 2 + [z[5]]
    np.testing.assert_allclose(history["z_mean"], expected, rtol=1e-6)


def test_the_epoch_in_which_training_is_stopped_is_measured(model, key):
    recorder = Recorder()
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 1)
    )
    history = fit(model, 9, [BitErrorRate(every=5), recorder, stop])
    z = [expected_scores(kernel, key).mean() for kernel in recorder.kernels]
    assert len(z) == 2
    np.testing.assert_allclose(history["z_mean"], z, rtol=1e-6)


@pytest.mark.parametrize("initial_epoch", [1, 3])
def test_the_first_epoch_is_measured_wherever_it_starts(model, key, initial_epoch):
    recorder = Recorder()
    callbacks = [BitErrorRate(every=3), recorder]
    history = fit(model, initial_epoch + 2, callbacks, initial_epoch=initial_epoch)
    assert history["z_mean"][0] == pytest.approx(
        expected_scores(recorder.kernels[0], key).mean()
    )


def test_a_second_fit_does_not_start_with_the_values_of_the_first(model, key):
    callback = BitErrorRate(every=5)
    first = fit(model, 2, [callback])
    second = fit(model, 1, [callback])
    assert second["z_mean"][0] > first["z_mean"][0]
    assert second["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", None])
def test_every_must_be_a_positive_whole_number(every):
    with pytest.raises(ValueError, match="every="):
        BitErrorRate(every=every)


def test_a_kernel_of_nan_is_reported_as_lost(key, tmp_path):
    model = dense_model(mark(key))
    kernel = find_layer(model).kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    history = fit_eagerly(model, 1, [BitErrorRate(log_dir=tmp_path)])
    assert history["ber"] == [1.0]


def test_without_a_mark_the_values_are_nan():
    with pytest.warns(UserWarning, match="found no mark in this model"):
        history = fit_eagerly(dense_model(), 2, [BitErrorRate()])
    assert all(math.isnan(value) for name in VALUES for value in history[name])


# Which marks are found.


def model_with_two_marks(names, regularizers):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((FEATURES,))
    layers = [
        keras.layers.Dense(UNITS, kernel_regularizer=regularizer, name=name)
        for name, regularizer in zip(names, regularizers, strict=True)
    ]
    parts = [layer(inputs) for layer in layers]
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Add()(parts)))
    return compile_model(model)


def test_several_layers_are_reported_each_and_together(key):
    short_key = fixed_key(8)
    model = model_with_two_marks("ab", [mark(key), mark(short_key)])
    history = fit_eagerly(model, 2, [BitErrorRate()])
    rate_a = expected_ber(kernel_of(model, "a"), key)
    rate_b = expected_ber(kernel_of(model, "b"), short_key)
    assert history["ber/a"][-1] == pytest.approx(rate_a)
    assert history["ber/b"][-1] == pytest.approx(rate_b)
    # The share of all bits.
    assert history["ber"][-1] == pytest.approx((32 * rate_a + 8 * rate_b) / 40)
    assert set(history) >= {f"{value}/{name}" for value in VALUES for name in "ab"}


def test_one_regularizer_on_two_layers_is_two_marks(key):
    regularizer = mark(key)
    model = model_with_two_marks("ab", [regularizer, regularizer])
    with pytest.warns(UserWarning, match="same slot"):
        history = fit_eagerly(model, 1, [BitErrorRate()])
    for name in "ab":
        expected = expected_ber(kernel_of(model, name), key)
        assert history[f"ber/{name}"] == [pytest.approx(expected)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_layers_of_one_name_in_nested_models_are_all_reported(key, place):
    # "d_2" is the name of another layer, and what the second "d" would be called.
    inputs = keras.Input((FEATURES,))

    slots = itertools.count()

    def dense(name):
        regularizer = mark(key, loss="crossentropy", slot=next(slots))
        return keras.layers.Dense(UNITS, kernel_regularizer=regularizer, name=name)

    parts = [
        keras.Sequential([keras.Input((FEATURES,)), dense("d")], name=name)(inputs)
        for name in "ab"
    ]
    parts.insert(place, dense("d_2")(inputs))
    model = compile_model(
        keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Add()(parts)))
    )
    history = fit_eagerly(model, 1, [BitErrorRate()])
    assert len([name for name in history if name.startswith("ber/")]) == 3


@pytest.mark.parametrize("make", [nested_model, subclassed_model])
def test_a_mark_deep_in_a_model_is_found(key, make):
    model = make(mark(key))
    history = fit_eagerly(model, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]
    assert set(history) == {"loss", *VALUES}


def test_a_subclassed_model_that_is_built_by_fit_is_reported_without_a_warning(key):
    model = subclassed_model(mark(key), built=False)
    history = fit_eagerly(model, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]


def test_a_sequential_model_that_is_built_by_fit_is_reported_without_a_warning(key):
    dense = keras.layers.Dense(UNITS, kernel_regularizer=mark(key), name=LAYER)
    model = compile_model(keras.Sequential([dense, keras.layers.Dense(4)]))
    history = fit_eagerly(model, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]


def test_a_model_that_holds_the_regularizer_itself_is_not_warned_of(key):
    model = subclassed_model(mark(key))
    model.penalty = find_layer(model).kernel_regularizer
    history = fit_eagerly(model, 1, [BitErrorRate()])
    assert set(history) == {"loss", *VALUES}
