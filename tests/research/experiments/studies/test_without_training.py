"""Embedding after training, compared with the equations and with brute force."""

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize

from keras_wm.research.experiments.schemes import SCHEMES, Mark, group_layer
from keras_wm.research.experiments.studies.without_training import (
    _Objective,
    embedded_without_training,
)
from keras_wm.scheme.detection import detect
from tests.models import expected_crossentropy, expected_margin_loss

SHAPE = (3, 3, 4, 6)
BITS = 16
LAYERS = (group_layer(2),)


@pytest.fixture
def kernel(rng):
    return 0.1 * rng.normal(size=SHAPE)


def expected_objective(kernel, start, mark, strength):
    """Returns |W - W_0|^2 / 2 L + lambda / T times the sum of the bits' losses."""
    key = mark.key()
    if SCHEMES[mark.scheme].loss == "margin":
        loss = expected_margin_loss(kernel, key, mark.margin(SHAPE))
    else:
        loss = expected_crossentropy(kernel, key)
    return np.sum((kernel - start) ** 2) / (2 * SHAPE[-1]) + strength * loss / BITS


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_objective_and_its_gradient_are_those_of_the_equations(scheme, kernel, rng):
    mark = Mark(scheme, LAYERS, BITS)
    objective = _Objective(kernel, mark, strength=3.0)
    change = 0.05 * rng.normal(size=kernel.size)
    value, gradient = objective(change)
    moved = kernel + change.reshape(SHAPE)
    assert value == pytest.approx(expected_objective(moved, kernel, mark, 3.0))
    error = check_grad(lambda x: objective(x)[0], lambda x: objective(x)[1], change)
    assert error < 1e-4 * np.linalg.norm(gradient)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_at_strength_zero_the_kernel_does_not_change(scheme, kernel):
    moved = embedded_without_training(kernel, Mark(scheme, LAYERS, BITS), 0.0)
    np.testing.assert_array_equal(moved, kernel)


@pytest.mark.parametrize("scheme", ["direct", "diff", "random"])
def test_for_the_mean_filter_the_objective_is_that_of_the_papers(scheme, kernel):
    # The papers change w, the mean of the filters: 1/2 |w - w_0|^2 + lambda E_R(w).
    mark = Mark(scheme, LAYERS, BITS)
    key = mark.key().for_shape(kernel.shape)
    start = kernel.mean(axis=-1).reshape(-1)
    x, signs = key.matrix, 2.0 * key.message - 1

    def papers(w):
        loss = np.logaddexp(0, -signs * (x @ w)).mean()
        return np.sum((w - start) ** 2) / 2 + 10 * loss

    best = minimize(papers, start, method="BFGS", options={"gtol": 1e-8}).x
    moved = embedded_without_training(kernel, mark, 10.0)
    np.testing.assert_allclose(moved.mean(axis=-1).reshape(-1), best, atol=2e-3)
    changes = moved - kernel
    np.testing.assert_allclose(changes, changes[..., :1] + 0 * changes, atol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_larger_strength_changes_more_and_embeds_more_bits(scheme, kernel):
    mark = Mark(scheme, LAYERS, BITS)
    moved = [
        embedded_without_training(kernel, mark, strength)
        for strength in (1.0, 1e2, 1e4)
    ]
    distances = [np.linalg.norm(result - kernel) for result in moved]
    bers = [detect(result, mark.key()).ber for result in moved]
    assert 0 < distances[0] < distances[1] <= distances[2]
    assert bers == sorted(bers, reverse=True)
    assert bers[-1] == 0
