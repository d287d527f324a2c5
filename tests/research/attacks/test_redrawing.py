"""Redrawing kernels where their layers do not see them."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from keras_wm.research.attacks.redrawing import KINDS, Seen, redrawing
from keras_wm.research.datasets import Examples

INPUTS, SEEN, UNITS = 96, 12, 80


@pytest.fixture(scope="module")
def data():
    """Vectors that fill 12 of 96 directions, some of them more than others."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(INPUTS, SEEN)))[0] * np.geomspace(1, 4, SEEN)
    x = (rng.normal(size=(400, SEEN)) @ axes.T).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    return Examples("vectors", x, y, x[:50], y[:50])


@pytest.fixture(scope="module")
def network():
    """A network without nonlinearities, whose second layer sees 12 directions too."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((INPUTS,)),
            layers.Dense(UNITS, name="first"),
            layers.Dense(UNITS, name="second"),
            layers.Dense(2, name="head"),
        ]
    )


def kernel(model, layer="first"):
    return np.asarray(model.get_layer(layer).kernel, np.float64)


def unseen_part(data, weights):
    """Returns the part of a matrix that is orthogonal to all examples."""
    axes = np.linalg.svd(data.x_train, full_matrices=False)[2][:SEEN]
    return weights - axes.T @ (axes @ weights)


@pytest.mark.parametrize("count", [200, 40])
def test_ridge_solves_the_regression_of_the_outputs(count):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(count, 60)) * np.geomspace(0.1, 1, 60)
    outputs, fresh = rng.normal(size=(count, 5)), rng.normal(size=(60, 5))
    seen = Seen.of(rows, outputs)
    moment = rows.T @ rows
    ridge = 0.3 * np.trace(moment) / 60
    expected = np.linalg.solve(
        moment + ridge * np.eye(60), rows.T @ outputs + ridge * fresh
    )
    mixed = seen.mixed(fresh, seen.values / (seen.values + 0.3))
    np.testing.assert_allclose(mixed, expected, atol=1e-8)


def test_relearning_is_gradient_descent_from_fresh_weights(data, network):
    """The fresh weights are those along directions that no example has."""
    attack = redrawing("relearning", "first", examples=400)
    steps = 25
    attacked = kernel(attack(network, data, steps))
    moment = data.x_train.T.astype(np.float64) @ data.x_train
    largest = np.linalg.eigvalsh(moment)[-1]
    old = kernel(network)
    # Each step shrinks the distance of the fresh weights.
    start = redrawing("relearning", "first", examples=400)(network, data, 10)
    left = kernel(start) - old
    for _ in range(steps - 10):
        left = left - moment @ left / largest
    np.testing.assert_allclose(attacked, old + left, atol=1e-4)


@pytest.mark.parametrize("kind", ["ridge", "relearning"])
def test_the_function_stays_and_what_it_does_not_use_is_new(kind, data, network):
    attack = redrawing(kind, "first")
    attacked = attack(network, data, attack.strengths[0])
    np.testing.assert_allclose(
        attacked.predict(data.x_test, verbose=0),
        network.predict(data.x_test, verbose=0),
        atol=0.02,
    )
    old, new = (unseen_part(data, kernel(model)) for model in (network, attacked))
    assert abs(np.corrcoef(old.ravel(), new.ravel())[0, 1]) < 0.05
    assert new.std() == pytest.approx(old.std(), rel=0.1)
    np.testing.assert_array_equal(kernel(attacked, "second"), kernel(network, "second"))


def test_every_layer_is_redrawn_but_the_head(data, network):
    attacked = redrawing("ridge")(network, data, 0.03)
    for layer in ("first", "second"):
        old, new = kernel(network, layer), kernel(attacked, layer)
        assert np.corrcoef(old.ravel(), new.ravel())[0, 1] < 0.5
    np.testing.assert_array_equal(kernel(attacked, "head"), kernel(network, "head"))
    outputs, expected = (
        model.predict(data.x_test, verbose=0) for model in (attacked, network)
    )
    assert np.corrcoef(outputs.ravel(), expected.ravel())[0, 1] > 0.99


def test_noise_avoids_the_directions_of_the_inputs(data, network):
    attack = redrawing("unseen-noise", "first", examples=400)
    noise = kernel(attack(network, data, 1.0)) - kernel(network)
    values, vectors = np.linalg.eigh(data.x_train.T.astype(np.float64) @ data.x_train)
    relative = values / values.mean()
    measured = np.square(vectors.T @ noise).mean(axis=1)
    expected = kernel(network).var() / (1 + relative)
    # 80 filters: each mean square has a standard deviation of 16 %.
    np.testing.assert_allclose(measured, expected, rtol=0.8)
    np.testing.assert_allclose(measured.mean(), expected.mean(), rtol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_as_inputs_needs_no_data(kind, network):
    attack = redrawing(kind, "first", "noise")
    assert not attack.needs_data
    attacked = attack(network)
    assert not np.allclose(kernel(attacked), kernel(network), atol=1e-3)


@pytest.mark.parametrize("count", [32, 64])
def test_normalizations_are_fitted_to_the_examples(count, data):
    model = keras.Sequential(
        [
            keras.Input((INPUTS,)),
            layers.Dense(UNITS, name="first"),
            layers.BatchNormalization(),
            layers.Dense(2),
        ]
    )
    examples = dataclasses.replace(data, x_train=data.x_train[:count])
    attacked = redrawing("ridge", "first", examples=count)(model, examples, 30.0)
    hidden = examples.x_train @ kernel(attacked)
    fitted = attacked.layers[1]
    np.testing.assert_allclose(fitted.moving_mean, hidden.mean(axis=0), atol=1e-5)
    # Two batches have a smaller variance than all of their examples.
    tolerance = 1e-4 if count == 32 else 0.25
    np.testing.assert_allclose(
        fitted.moving_variance, hidden.var(axis=0), rtol=tolerance
    )
    assert fitted.momentum == 0.99


def test_networks_without_unseen_directions_are_refused(data):
    small = keras.Sequential(
        [keras.Input((20,)), layers.Dense(30), layers.Dense(2)], name="small"
    )
    with pytest.raises(ValueError, match=r"at least 64 inputs.*Received: 'small'"):
        redrawing("ridge", shown="noise")(small)


def test_noise_needs_inputs_of_a_fixed_shape():
    model = keras.Sequential(
        [keras.Input((None, 96)), layers.Dense(8, name="first"), layers.Dense(2)]
    )
    with pytest.raises(ValueError, match=r"fixed shape.*\(None, 96\)"):
        redrawing("ridge", "first", "noise")(model)
