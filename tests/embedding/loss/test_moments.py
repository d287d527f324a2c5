"""The margin's gradient leaves the even moments and the mean filter unchanged."""

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from keras_wm import WatermarkRegularizer
from keras_wm.embedding.loss.bands import Bands
from keras_wm.embedding.loss.kernel_projection import without_capacity_warnings
from keras_wm.embedding.loss.moments import corrected
from tests.conftest import fixed_key
from tests.models import compiled_gradient, expected_scores, value_and_gradient

# With 20 bits and 16 groups, the last round of groups is not full.
BITS, MARGIN, STRENGTH = 20, 0.9, 0.3
POWERS = (1, 3, 5)


def without_mean_filter(kernel):
    return kernel - kernel.mean(axis=-1, keepdims=True)


@pytest.mark.backends
@pytest.mark.parametrize("filters", ["keyed", "mean"])
def test_the_gradient_is_that_of_the_loss_made_orthogonal_plus_the_noise_correction(
    filters, rng
):
    key = fixed_key(BITS, filters=filters)
    kernel = rng.normal(size=(40, 24)).astype("float32")
    regularizer = WatermarkRegularizer(key, strength=STRENGTH, margin=MARGIN)
    _, gradient = value_and_gradient(regularizer, kernel)
    mark = key.for_shape(kernel.shape)
    w, x, a = kernel.astype(np.float64), mark.matrix, mark.filter_weights
    z, loss_gradient = expected_scores(kernel, key), np.zeros((40, 24))
    shortfall = np.maximum(0.0, MARGIN - z)
    for j, sign in enumerate(2.0 * mark.message - 1.0):
        weights = a[j % len(a)]
        # The norm of u_j counts as a constant.
        norm = np.linalg.norm(w @ weights)
        loss_gradient -= 2 * shortfall[j] * sign * np.outer(x[j], weights) / norm
    # Subtracting three directions, with three coefficients, makes the gradient
    # orthogonal to three powers of the kernel.
    free = without_mean_filter if filters == "keyed" else np.copy
    powers, directions = [w**p for p in POWERS], [free(w**p) for p in POWERS]
    products = [[np.sum(p * direction) for direction in directions] for p in powers]
    c = np.linalg.solve(products, [np.sum(p * loss_gradient) for p in powers])
    expected = loss_gradient - np.tensordot(c, directions, 1)
    # At every z below 7/8 of the margin, a bit removes the mean over the transition
    # from chance to there, raised by 8.9 %, in the way in which noise changes moments.
    end = 7 / 8 * MARGIN
    noise_added, distance = (
        integrate.quad(lambda s, f=f: f(s) * stats.norm.pdf(s), -np.inf, end)[0]
        for f in (lambda s: (end**2 - s**2) / 2, lambda s: end - s)
    )
    correction = np.where(z < end, 1.089 * noise_added / distance - z, 0.0)
    noise = np.linalg.solve(products, [p * np.mean(w ** (p - 1)) for p in POWERS])
    expected += np.sum(2 * shortfall * correction) * np.tensordot(noise, directions, 1)
    np.testing.assert_allclose(gradient, STRENGTH * expected, rtol=1e-3, atol=1e-6)


@pytest.mark.backends
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    size=st.integers(4, 12),
    count=st.integers(2, 12),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e12]),
    seed=st.integers(0, 99),
)
def test_a_small_step_changes_even_moments_as_noise_does_and_not_the_mean_filter(
    size, count, scale, seed
):
    kernel = scale * np.random.default_rng(seed).standard_t(5, (size, count))
    kernel = kernel.astype("float32").astype(np.float64)
    with without_capacity_warnings():
        regularizer = WatermarkRegularizer(fixed_key(4), strength=1.0)
        _, gradient = value_and_gradient(regularizer, kernel.astype("float32"))
    assume(gradient.any())
    norm = np.linalg.norm(gradient)
    if count % 2 == 0:
        # An odd number of signs is not balanced.
        assert np.abs(gradient.mean(axis=-1)).max() < 1e-4 * norm
    # The variance of the noise that the step amounts to, from the second moment.
    variance = np.sum(kernel * gradient)
    for p in (3, 5):
        change = np.sum(kernel**p * gradient)
        change_by_noise = variance * p * np.mean(kernel ** (p - 1))
        unit = np.linalg.norm(kernel**p) * norm
        assert abs(change - change_by_noise) < 1e-3 * unit


@pytest.mark.backends
@pytest.mark.parametrize(
    "kernel",
    [
        np.zeros((40, 24)),
        np.sign(np.random.default_rng(1).normal(size=(40, 24))),
        np.full((40, 24), 1e-30),
    ],
    ids=["zeros", "of one magnitude", "tiny and all the same"],
)
def test_a_kernel_without_a_kurtosis_to_preserve_is_marked_all_the_same(kernel):
    regularizer = WatermarkRegularizer(fixed_key(BITS), strength=1.0, margin=MARGIN)
    value, gradient = value_and_gradient(regularizer, kernel.astype("float32"))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert gradient.any()


WEIGHTS = {
    "normal": lambda rng, shape: 0.05 * rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-0.1, 0.1, shape),
    "heavy-tailed": lambda rng, shape: 1e-3 * rng.standard_t(3, shape),
    "sparse": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.05),
    "three values": lambda rng, shape: 0.03 * rng.integers(-1, 2, shape),
    "four values": lambda rng, shape: rng.choice([-0.3, -0.1, 0.1, 0.3], shape),
    "constant": lambda rng, shape: np.full(shape, 0.02),
    "zeros": lambda rng, shape: np.zeros(shape),
}


def expected_correction(gradient, noise, kernel, free):
    """Returns a corrected gradient, by QR decomposition in double precision.

    A power that a QR decomposition finds to depend on the lower ones is left out.
    """
    powers = np.stack([(kernel**p).ravel() for p in POWERS])
    directions = np.stack([free(kernel**p).ravel() for p in POWERS])
    norms = np.linalg.norm(powers, axis=1)
    scale = np.where(norms > 0, norms, 1.0)[:, None]
    left = np.abs(np.diag(np.linalg.qr((directions / scale).T, mode="r")))
    kept = left > 1e-3
    changes = [noise * p * np.mean(kernel ** (p - 1)) for p in POWERS]
    missing = changes - powers @ gradient.ravel()
    solution, *_ = np.linalg.lstsq(
        (powers / scale)[kept] @ directions[kept].T,
        (missing / scale[:, 0])[kept],
        rcond=None,
    )
    return gradient + (solution @ directions[kept]).reshape(kernel.shape)


@pytest.mark.backends
@pytest.mark.parametrize("keep_mean_filter", [True, False])
@pytest.mark.parametrize("weights", list(WEIGHTS))
def test_the_correction_is_that_of_a_qr_decomposition(weights, keep_mean_filter, rng):
    kernel = WEIGHTS[weights](rng, (40, 24)).astype("float32")
    gradient = rng.normal(size=(40, 24)).astype("float32")
    result = corrected(
        keras.ops.convert_to_tensor(gradient),
        keras.ops.convert_to_tensor(np.float32(0.5)),
        keras.ops.convert_to_tensor(kernel),
        keep_mean_filter,
        Bands(None, 40),
    )
    free = without_mean_filter if keep_mean_filter else np.copy
    expected = expected_correction(
        gradient.astype(np.float64), 0.5, kernel.astype(np.float64), free
    )
    error = np.abs(keras.ops.convert_to_numpy(result) - expected)
    assert error.max() < 1e-4 * np.abs(expected).max()


@pytest.fixture(scope="module")
def gradient_of_64_bits():
    """The gradient of a mark of 64 bits at m = 4, traced once."""
    return compiled_gradient(
        WatermarkRegularizer(fixed_key(64), strength=1e-4, margin=4.0)
    )


@pytest.mark.parametrize(
    ("rate", "momentum", "steps"), [(1.0, 0.0, 80), (0.1, 0.9, 120), (0.03, 0.9, 240)]
)
def test_an_embedded_mark_has_changed_no_moment_whatever_the_momentum(
    gradient_of_64_bits, rate, momentum, steps, rng
):
    """The mark takes 5.6 % of the squared norm of 18,432 weights."""
    start = stats.truncnorm.rvs(-2, 2, size=(288, 64), random_state=rng)
    start *= 0.06 / start.std()
    kernel, velocity = start.astype("float32"), np.zeros((288, 64), "float32")
    with without_capacity_warnings():
        for _ in range(steps):
            velocity = momentum * velocity - rate * gradient_of_64_bits(kernel)
            kernel = (kernel + velocity).astype("float32")
    assert expected_scores(kernel, fixed_key(64)).min() > 3.5
    # Without the correction it would be 2.7 % wider, and 1.4 % with a correction that
    # ignores momentum.
    assert kernel.std() == pytest.approx(start.std(), rel=0.027 / 4)
    # Without the sixth moment, and without momentum, it would be 1.3 % and 6 %.
    for power, tolerance in ((4, 0.005), (6, 0.015)):
        now, before = (
            stats.moment(weights.ravel() / weights.std(), power)
            for weights in (kernel, start)
        )
        assert now == pytest.approx(before, rel=tolerance)
    np.testing.assert_allclose(
        kernel.mean(axis=-1), start.mean(axis=-1), atol=1e-3 * start.std()
    )
