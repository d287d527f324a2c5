"""Scores, bit errors and p-values, compared with formulas written out here."""

from itertools import product
from math import comb, log10

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from keras_wm import WatermarkKey, detect
from keras_wm.scheme.detection import (
    Detection,
    corrected,
    format_p,
    log10_binomial_tail,
)
from tests.conftest import fixed_key, unrelated_keys


def exact_log10_tail(matches, trials):
    # Exact in integers: comb(n, k + 1) = comb(n, k) (n - k) / (k + 1).
    count, term = 0, comb(trials, matches)
    for k in range(matches, trials + 1):
        count += term
        term = term * (trials - k) // (k + 1)
    # The quotient can be too small for a double.
    return log10(count) - trials * log10(2)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 3000), st.floats(0, 1))
def test_the_hard_p_value_is_the_exact_binomial_tail(trials, share):
    matches = round(share * trials)
    assert log10_binomial_tail(matches, trials) == pytest.approx(
        exact_log10_tail(matches, trials), rel=1e-9, abs=1e-9
    )


def test_256_correct_bits_have_a_probability_of_2_to_the_minus_256():
    assert log10_binomial_tail(256, 256) == pytest.approx(-256 * log10(2), abs=1e-9)


def test_bits_and_scores_of_an_embedded_message_are_read_correctly(rng):
    # The kernel is the solution of x_j . W a_j = s_j with the least norm.
    key = fixed_key(32, filters="mean")
    mark = key.for_shape((72, 5))
    mean_filter = np.linalg.pinv(mark.matrix) @ (2.0 * mark.message - 1)
    kernel = np.repeat(mean_filter[:, None], 5, axis=1).reshape(3, 3, 8, 5)
    detection = detect(kernel, key)
    assert detection.ber == 0
    np.testing.assert_allclose(detection.z, 1 / np.linalg.norm(mean_filter))
    np.testing.assert_array_equal(detection.recovered, mark.message)


def test_the_opposite_message_is_all_wrong():
    key = fixed_key(32, filters="mean")
    mark = key.for_shape((72, 5))
    mean_filter = np.linalg.pinv(mark.matrix) @ (1 - 2.0 * mark.message)
    detection = detect(np.repeat(mean_filter[:, None], 5, axis=1), key)
    assert detection.ber == 1
    assert detection.log10_p_hard == 0
    np.testing.assert_array_equal(detection.recovered, 1 - mark.message)


def test_adding_the_same_to_all_filters_changes_no_keyed_score(rng):
    # The papers' mark does this when it overwrites a keyed mark.
    key, kernel = fixed_key(48), rng.normal(size=(3, 3, 8, 16))
    common = 5 * rng.normal(size=(3, 3, 8, 1))
    np.testing.assert_allclose(
        detect(kernel + common, key).z, detect(kernel, key).z, atol=1e-9
    )


@pytest.mark.parametrize("filters", ["keyed", "mean"])
def test_scores_of_unmarked_kernels_are_standard_normal(filters):
    # 200 keys of 32 bits on a heavy-tailed kernel: 6,400 scores. Kolmogorov-Smirnov
    # test at 1e-6; in addition, keys and kernel are fixed.
    kernel = np.random.default_rng(3).standard_cauchy((60, 24)) + 5
    keys = unrelated_keys(200, filters=filters)
    z = np.concatenate([detect(kernel, key).z for key in keys])
    assert stats.kstest(z, "norm").pvalue > 1e-6


@pytest.mark.parametrize("projection", ["random", "direct", "diff"])
def test_p_values_of_unmarked_kernels_are_not_too_small(projection):
    # 400 keys on a kernel of positive weights: P[p <= 1/20] <= 1/20, so more than 47 of
    # 400 such p-values have a probability below 1e-7.
    kernel = np.abs(np.random.default_rng(4).normal(size=(80, 6)))
    keys = unrelated_keys(400, 40, projection, "mean")
    detections = [detect(kernel, key) for key in keys]
    for log10_p in (
        [detection.log10_p_hard for detection in detections],
        [detection.log10_p for detection in detections],
    ):
        assert np.mean(10.0 ** np.array(log10_p) <= 0.05) <= 47 / 400


def test_the_soft_p_value_is_the_normal_tail_of_the_sum(rng, key):
    detection = detect(rng.normal(size=(50, 20)), key)
    expected = stats.norm.logsf(detection.z.sum() / np.sqrt(32)) / np.log(10)
    assert detection.log10_p_soft == pytest.approx(expected)
    assert detection.log10_p == detection.log10_p_soft


def test_sparse_projections_give_no_soft_p_value(rng):
    detection = detect(rng.normal(size=(50, 20)), fixed_key(20, "direct"))
    assert detection.log10_p_soft is None
    assert detection.log10_p == detection.log10_p_hard


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        (np.zeros((40, 20)), "equal"),
        (np.full((40, 20), 0.3), "equal"),
        (np.where(np.eye(40, 20) > 0, np.nan, 1.0), "NaN"),
        (np.where(np.eye(40, 20) > 0, -np.inf, 1.0), "infinite"),
    ],
)
def test_a_kernel_without_information_is_not_evidence(kernel, problem):
    detection = detect(kernel, fixed_key())
    assert problem in detection.problem
    assert detection.matches == 0
    assert detection.ber == 1
    assert detection.log10_p_hard == 0
    assert detection.log10_p_soft == pytest.approx(np.log10(0.5))


def test_a_layer_of_zeros_does_not_carry_the_all_ones_message(rng):
    key = WatermarkKey.from_arrays(rng.normal(size=(8, 30)), np.ones(8))
    assert detect(np.zeros((30, 4)), key).matches == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e30, 1e300])
def test_scores_do_not_depend_on_the_scale(rng, key, scale):
    kernel = rng.normal(size=(40, 20))
    np.testing.assert_allclose(
        detect(kernel * scale, key).z, detect(kernel, key).z, rtol=1e-9
    )


def test_the_order_of_filters_does_not_matter_to_the_mean_filter(rng):
    key, kernel = fixed_key(filters="mean"), rng.normal(size=(40, 20))
    shuffled = kernel[:, rng.permutation(20)]
    np.testing.assert_allclose(detect(shuffled, key).z, detect(kernel, key).z)


def test_the_p_value_is_multiplied_by_the_number_of_tests():
    assert corrected(-12.0, 1000) == pytest.approx(-9)
    assert corrected(-2.0, 1000) == 0
    assert corrected(-5.0, 1) == -5


def test_tiny_p_values_do_not_print_as_zero():
    assert format_p(-1300.25) == "10^-1300.2"
    assert format_p(log10(0.031)) == "0.031"
    assert format_p(0.0) == "1"


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=10),
    lost=st.floats(0, 0.5),
)
def test_the_soft_p_value_of_a_recipients_key_bounds_every_sum_of_signs(weights, lost):
    scaled = np.array(weights) * (1 - lost) / np.linalg.norm(weights)
    signs = np.array(list(product([-1, 1], repeat=len(weights))))
    sums = np.sort(signs @ scaled)
    # The share of the sums that are at least as large, also where rounding differs.
    p = 1 - np.searchsorted(sums, sums - 1e-12) / len(sums)
    factor = fixed_key().for_recipient("a").for_shape((40, 8)).tail_factor
    message = np.zeros(1, np.uint8)
    bounds = [
        10 ** Detection(np.array([value]), message, factor).log10_p_soft
        for value in sums
    ]
    assert (np.array(bounds) >= p * (1 - 1e-9)).all()


def test_the_scores_of_recipients_are_independent_of_the_kernel():
    """Innocent recipients of kernels with few, equal and very different weights."""
    owner, rng = fixed_key(64), np.random.default_rng(5)
    kernels = [
        rng.normal(size=(48, 16)),
        np.ones((48, 16)) + np.eye(48, 16),
        rng.standard_cauchy(size=(48, 16)) ** 3,
    ]
    for kernel in kernels:
        found = [
            detect(kernel, owner.for_recipient(f"innocent {number}"))
            for number in range(400)
        ]
        for log10_p in (
            [detection.log10_p_soft for detection in found],
            [detection.log10_p_hard for detection in found],
        ):
            for level in (0.1, 0.01):
                alarms = np.sum(np.array(log10_p) <= np.log10(level))
                # More alarms have a probability of 1e-6, 12 times.
                assert stats.binom.sf(alarms - 1, 400, level) > 1e-6
