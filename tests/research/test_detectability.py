"""Statistics of a kernel, against formulas and random kernels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from keras_wm.research.detectability import (
    STATISTICS,
    kernel_statistics,
    sorted_weights,
)

SIZE, COUNT = 300, 40


@pytest.fixture
def kernel(rng):
    """A kernel of skewed, heavy-tailed weights, whose filters have different norms."""
    weights = rng.gamma(2.0, size=(SIZE, COUNT)) - 1.5
    return (weights * rng.uniform(0.5, 2, COUNT)).reshape(3, 4, 25, COUNT)


def test_moments_are_over_all_weights(kernel):
    result, flat = kernel_statistics(kernel), kernel.reshape(-1)
    assert result["scale"] == pytest.approx(np.log(flat.std()))
    assert result["mean"] == pytest.approx(flat.mean() / (flat.std() / flat.size**0.5))
    assert result["skewness"] == pytest.approx(stats.skew(flat))
    assert result["kurtosis"] == pytest.approx(stats.kurtosis(flat, fisher=False))
    assert result["sixth moment"] == pytest.approx(
        stats.moment(flat, 6) / stats.moment(flat, 2) ** 3
    )
    small = np.count_nonzero(np.abs(flat) < 0.1 * flat.std())
    assert result["small weights"] == pytest.approx(small / flat.size)
    assert result["largest weight"] == pytest.approx(max(abs(flat)) / flat.std())


def test_norms_are_those_of_filters_and_rows(kernel):
    result, w = kernel_statistics(kernel), kernel.reshape(SIZE, COUNT)
    norms = [sum(column**2) ** 0.5 for column in w.T]
    rows = [sum(row**2) ** 0.5 for row in w]
    expected = w.std() * SIZE**0.5
    assert result["largest filter norm"] == pytest.approx(max(norms) / expected)
    assert result["smallest filter norm"] == pytest.approx(min(norms) / expected)
    assert result["spread of filter norms"] == pytest.approx(stats.variation(norms))
    assert result["spread of row norms"] == pytest.approx(stats.variation(rows))
    mean_filter = np.array([sum(row) / COUNT for row in w])
    assert result["mean filter"] == pytest.approx(
        mean_filter.std() / (w.std() / COUNT**0.5)
    )


def test_cosines_are_over_all_pairs_of_filters(kernel):
    result, w = kernel_statistics(kernel), kernel.reshape(SIZE, COUNT)
    cosines = [
        w[:, i] @ w[:, j] / (np.linalg.norm(w[:, i]) * np.linalg.norm(w[:, j]))
        for i in range(COUNT)
        for j in range(i)
    ]
    assert result["mean cosine"] == pytest.approx(np.mean(cosines))
    assert result["largest cosine"] == pytest.approx(max(np.abs(cosines)))
    assert result["root mean square cosine"] == pytest.approx(
        np.mean(np.square(cosines)) ** 0.5
    )


def test_singular_values_are_relative_to_the_edge(kernel):
    result, w = kernel_statistics(kernel), kernel.reshape(SIZE, COUNT)
    squares = np.linalg.eigvalsh(w.T @ w)[::-1]
    edge = w.std() * (SIZE**0.5 + COUNT**0.5)
    for place in (1, 2, 4, 16):
        expected = squares[place - 1] ** 0.5 / edge
        assert result[f"singular value {place}"] == pytest.approx(expected)
    assert result["smallest singular value"] == pytest.approx(squares[-1] ** 0.5 / edge)
    shares = squares / sum(squares)
    assert result["effective rank"] == pytest.approx(np.exp(stats.entropy(shares)) / 40)
    assert result["participation"] == pytest.approx(1 / sum(shares**2) / 40)


def test_normal_weights_have_the_statistics_of_theory(rng):
    """Averages 20 kernels; each bound is 4 standard errors of the mean or wider."""
    size, count = 400, 64
    results = [kernel_statistics(rng.normal(0, 3, (size, count))) for _ in range(20)]
    mean = {name: np.mean([result[name] for result in results]) for name in STATISTICS}
    error = (20 * size * count) ** -0.5
    assert mean["scale"] == pytest.approx(np.log(3), abs=4 * error)
    assert mean["kurtosis"] == pytest.approx(3, abs=4 * 24**0.5 * error)
    assert mean["skewness"] == pytest.approx(0, abs=4 * 6**0.5 * error)
    assert mean["small weights"] == pytest.approx(0.0797, abs=4 * 0.27 * error)
    assert mean["mean filter"] == pytest.approx(1, abs=4 * (2 * size * 20) ** -0.5)
    assert mean["mean"] == pytest.approx(0, abs=4 * 20**-0.5)
    # The largest one is slightly below the edge (Tracy & Widom): 0.98 here.
    assert 0.97 < mean["singular value 1"] < 1
    lower = (size**0.5 - count**0.5) / (size**0.5 + count**0.5)
    assert mean["smallest singular value"] == pytest.approx(lower, rel=0.03)


@given(st.floats(1e-6, 1e6), st.integers(0, 2**32 - 1))
def test_only_the_scale_depends_on_the_scale(factor, seed):
    kernel = np.random.default_rng(seed).normal(size=(12, 5))
    result, scaled = kernel_statistics(kernel), kernel_statistics(factor * kernel)
    assert scaled.pop("scale") - result.pop("scale") == pytest.approx(np.log(factor))
    assert scaled == pytest.approx(result)
    np.testing.assert_allclose(sorted_weights(factor * kernel), sorted_weights(kernel))


def test_the_order_of_filters_does_not_matter(kernel, rng):
    permuted = kernel[..., rng.permutation(COUNT)]
    assert kernel_statistics(permuted) == pytest.approx(kernel_statistics(kernel))
    np.testing.assert_allclose(sorted_weights(permuted), sorted_weights(kernel))


def test_a_mark_in_the_mean_filter_is_detected(rng):
    kernel = rng.normal(size=(576, 64))
    marked = kernel + 0.5 * rng.normal(size=(576, 1))
    before, after = kernel_statistics(kernel), kernel_statistics(marked)
    # sqrt(1 / 64 + 0.25) over sqrt((1 + 0.25) / 64).
    assert after["mean filter"] == pytest.approx(3.69, rel=0.1)
    assert before["mean filter"] < 1.2
    assert after["singular value 1"] > 1.3 > 1.05 > before["singular value 1"]


def test_sorted_weights_are_quantiles(kernel):
    shape, flat = sorted_weights(kernel), np.sort(kernel.reshape(-1)) / kernel.std()
    assert shape.shape == (67,)
    assert (shape[0], shape[32]) == pytest.approx((flat[0], flat[-1]))
    assert shape[16] == pytest.approx(np.median(flat))
    assert all((np.diff(part) >= 0).all() for part in np.split(shape, [33, 50]))


def test_a_pruned_filter_keeps_all_statistics_finite(kernel):
    kernel[..., 3] = 0
    assert all(np.isfinite(value) for value in kernel_statistics(kernel).values())


@pytest.mark.parametrize(
    "kernel", [np.ones((3, 4)), np.ones(9), np.ones((9, 1)), np.full((3, 3), np.nan)]
)
def test_an_invalid_kernel_is_rejected(kernel):
    with pytest.raises(ValueError, match=r"Expected a kernel of .* Received"):
        kernel_statistics(kernel)
