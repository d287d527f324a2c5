"""Undoing what was done to the output filters, by what the key holds."""

import itertools
import json
from math import factorial, log10

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.alignment.filter_assignment import MAX_FILTERS, arrangements
from keras_wm.scheme.detection import detect
from tests.conftest import fixed_key
from tests.marked_model import with_mark

SHAPE = (3, 3, 16, 32)


@pytest.fixture
def key():
    return fixed_key(256)


@pytest.fixture
def kernel(key, rng):
    """A kernel with a mark."""
    found = with_mark(rng.normal(size=SHAPE), key, 2)
    assert detect(found, key).log10_p < -200
    return found


def rearranged(kernel, rng, signs=True, scales=True):
    """Its filters in any order, of any sign and positive scale."""
    count = kernel.shape[-1]
    result = kernel[..., rng.permutation(count)]
    if signs:
        result = result * rng.choice([-1, 1], count)
    return result * np.exp(rng.normal(size=count)) if scales else result


def network(kernel):
    """A network with a kernel in it."""
    *_, depth, count = kernel.shape
    layer = keras.layers.Conv2D(count, 3, use_bias=False, name="marked")
    model = keras.Sequential([keras.Input((8, 8, depth)), layer])
    layer.kernel.assign(kernel)
    return model


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("scales", [False, True])
def test_filters_in_another_order_are_put_back(key, kernel, rng, signs, scales):
    suspect = network(rearranged(kernel, rng, signs, scales))
    found = keras_wm.verify(suspect, key, reordered=True)
    assert found.log10_p < keras_wm.verify(suspect, key).log10_p - 200
    assert found.ber < 0.01


def test_the_mean_filter_needs_the_signs_alone(rng):
    key = fixed_key(64, filters="mean")
    kernel = with_mark(rng.normal(size=SHAPE), key, 2) * np.tile([1, -1], 16)
    kernel = rearranged(kernel, rng, signs=False)
    assert keras_wm.verify(network(kernel), key).log10_p > -3
    verification = keras_wm.verify(network(kernel), key, reordered=True)
    assert verification.log10_p < -20
    assert verification.tried == 1 + 2
    assert verification.log10_arrangements == pytest.approx(32 * log10(2))


def test_the_p_value_is_multiplied_by_the_number_of_arrangements(key, kernel, rng):
    suspect = network(rearranged(kernel, rng, signs=True))
    found = keras_wm.verify(suspect, key, reordered=True)
    assert found.tried == 1 + 4
    expected = found.detection.log10_p + log10(factorial(32)) + 32 * log10(2) + log10(5)
    assert found.log10_p == pytest.approx(expected)


def test_the_report_says_what_was_undone(key, kernel, rng):
    found = keras_wm.verify(network(rearranged(kernel, rng)), key, reordered=True)
    rows = dict(found.rows())
    assert "channels moved" in rows["reordered"]
    assert "bits wrong" in rows["unaligned"]
    look = json.loads(json.dumps(found.to_dict()))["attempts"]["reordered"]
    assert look["moved"] > 0
    assert look["flipped"] > 0
    assert look["log10_arrangements"] == pytest.approx(found.log10_arrangements)


def test_no_other_arrangement_has_a_higher_sum_of_scores(rng):
    """Against all 5! 2^5 of them: with one group the sum is the gain over |u|.

    Hence the gain is compared, for which the assignment is solved.
    """
    key = fixed_key(12, groups=3)
    kernel = rng.normal(size=(12, 5))
    units = kernel / np.linalg.norm(kernel, axis=0)
    matrix, weights = key.matrix(12), key.filter_weights(5)

    def gain(arranged):
        rows = matrix * (2.0 * key.message - 1)[:, None]
        directions = arranged @ weights.T
        return sum(row @ directions[:, j % 3] for j, row in enumerate(rows))

    orders = list(itertools.permutations(range(5)))
    signs = [np.array(one) for one in itertools.product([-1, 1], repeat=5)]
    in_place = [units * one for one in signs]
    moved = [units[:, list(order)] for order in orders]
    both = [one * sign for one in moved for sign in signs]
    families = [[units], in_place, moved, both]
    for one, family in zip(arrangements(kernel, key), families, strict=True):
        assert 10**one.log10_family == pytest.approx(len(family))
        assert gain(one.kernel) == pytest.approx(max(map(gain, family)))
        distances = [np.abs(one.kernel - other).max() for other in family]
        assert min(distances) < 1e-12


@pytest.mark.parametrize("shape", [(40, 3), (30, 4)])
def test_in_unmarked_kernels_the_corrected_p_value_is_no_smaller_than_it_says(
    shape, rng
):
    """Of 300 kernels, as many as chance allows at 5 %, or fewer: P < 1e-7 for 40.

    Few filters, where the bound is tightest.
    """
    alarms = 0
    for trial in range(300):
        key = fixed_key(24, groups=2, secret=bytes([trial % 256, trial // 256]) * 16)
        kernel = rng.normal(size=shape) + 0.5
        found = [
            detect(one.kernel, key).log10_p + one.log10_family
            for one in arrangements(kernel, key)
        ]
        alarms += min(found) + log10(len(found)) < log10(0.05)
    assert alarms < 40


def test_unmarked_networks_give_no_false_alarm(key, rng):
    """False alarm below 1e-8 by the definition of the verdict."""
    for _ in range(10):
        kernel = rng.normal(size=SHAPE)
        found = keras_wm.verify(network(kernel), key, reordered=True)
        assert not found.marked


def test_a_kernel_of_very_many_filters_is_left_as_it_is(key, rng):
    kernel = rng.normal(size=(64, MAX_FILTERS + 1))
    assert list(arrangements(kernel, key)) == []


def test_odd_kernels_are_no_evidence(key):
    for value in (0.0, 1.0, np.nan):
        suspect = network(np.full(SHAPE, value))
        assert not keras_wm.verify(suspect, key, reordered=True).marked


def test_what_was_done_to_the_inputs_is_not_undone(key, kernel, rng):
    """It takes a reference, which the documentation says."""
    suspect = network(rearranged(kernel[:, :, rng.permutation(16)], rng))
    assert not keras_wm.verify(suspect, key, reordered=True).marked
