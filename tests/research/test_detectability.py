"""Statistics of a kernel, against formulas and random kernels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from keras_wm.research.detectability import (
    PAIR_STATISTICS,
    STATISTICS,
    kernel_statistics,
    pair_statistics,
    sorted_weights,
)
from keras_wm.research.experiments.roc import auc
from tests.conftest import fixed_key
from tests.marked_model import with_mark

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


def test_pair_statistics_are_those_of_their_formulas(rng):
    first, second = rng.normal(size=(2, 3, 4, 25, COUNT))
    result = pair_statistics(first, second)
    v, w = first.reshape(SIZE, COUNT), second.reshape(SIZE, COUNT)

    def cosine(a, b):
        return a @ b / (a @ a * (b @ b)) ** 0.5 * len(a) ** 0.5

    assert result["cosine"] == pytest.approx(cosine(v.ravel(), w.ravel()))
    assert result["cosine of mean filters"] == pytest.approx(
        cosine(v.mean(axis=1), w.mean(axis=1))
    )
    products = [
        np.array([m[i] @ m[j] for i in range(SIZE) for j in range(i + 1, SIZE)])
        for m in (v, w)
    ]
    assert result["cosine of row products"] == pytest.approx(cosine(*products))
    for side, (a, b) in {"left": (v, w), "right": (v.T, w.T)}.items():
        spans = [np.linalg.eigh(m @ m.T)[1][:, -8:] for m in (a, b)]
        overlap = np.sum(np.linalg.svd(spans[0].T @ spans[1])[1] ** 2)
        assert result[f"overlap of {side} singular vectors"] == pytest.approx(
            overlap / (64 / len(a))
        )


def test_two_kernels_of_different_shapes_are_rejected(kernel):
    with pytest.raises(ValueError, match="two kernels of one shape"):
        pair_statistics(kernel, kernel[0])


PAIRS = 60


@pytest.fixture(scope="module")
def pairs():
    """Statistics of pairs of kernels by kind, in rows.

    A mark has 3 % of the squared norm of a kernel, as in a kernel of this size that is
    filled to the default capacity.
    """
    rng = np.random.default_rng(5)
    key, slots = fixed_key(64), {"same": (0, 0), "distinct": (0, 1)}

    def statistics(*kernels):
        return list(pair_statistics(*kernels).values())

    unmarked = rng.normal(size=(PAIRS, 2, 288, 64))
    rows = {"unmarked": [statistics(*kernels) for kernels in unmarked]}
    for kind, pair in slots.items():
        rows[kind] = [
            statistics(
                *(
                    with_mark(rng.normal(size=(288, 64)), key.in_slot(slot), 0.17)
                    for slot in pair
                )
            )
            for _ in range(PAIRS)
        ]
    return {kind: np.array(of_kind) for kind, of_kind in rows.items()}


def test_two_marks_in_one_slot_are_detected(pairs):
    areas = dict(
        zip(PAIR_STATISTICS, auc(pairs["same"], pairs["unmarked"]), strict=True)
    )
    assert areas["cosine"] > 0.95
    # rho^2 sqrt(M L), within 4 standard errors of the mean of 60 pairs.
    share = 0.17**2 / (1 + 0.17**2)
    mean = pairs["same"][:, 0].mean()
    assert mean == pytest.approx(share * (288 * 64) ** 0.5, abs=4 * PAIRS**-0.5)


def test_two_marks_in_distinct_slots_are_not_detected(pairs):
    # The standard error of an area of 0.5 is 0.053. Four of them, for five statistics:
    # a false alarm in 3e-4 of all seeds.
    areas = auc(pairs["distinct"], pairs["unmarked"])
    assert np.abs(areas - 0.5).max() < 4 * 0.053


def test_unrelated_kernels_have_the_pair_statistics_of_chance(pairs):
    mean = pairs["unmarked"].mean(axis=0)
    expected = [0.0, 0.0, 0.0, 1.0, 1.0]
    # Four standard errors.
    error = 4 * pairs["unmarked"].std(axis=0) / PAIRS**0.5
    assert (np.abs(mean - expected) < error).all()
