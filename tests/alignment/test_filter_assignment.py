"""Undoing changes of the output filters with the key, without a reference model."""

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
    marked = with_mark(rng.normal(size=SHAPE), key, 2)
    assert detect(marked, key).log10_p < -200
    return marked


def rearranged(kernel, rng, signs=True, scales=True):
    """Returns a kernel with its filters reordered, sign-flipped and scaled."""
    count = kernel.shape[-1]
    result = kernel[..., rng.permutation(count)]
    if signs:
        result = result * rng.choice([-1, 1], count)
    return result * np.exp(rng.normal(size=count)) if scales else result


def network(kernel):
    """Returns a network that contains a kernel."""
    *_, depth, count = kernel.shape
    layer = keras.layers.Conv2D(count, 3, use_bias=False, name="marked")
    model = keras.Sequential([keras.Input((8, 8, depth)), layer])
    layer.kernel.assign(kernel)
    return model


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("scales", [False, True])
def test_reordered_filters_are_put_back(key, kernel, rng, signs, scales):
    suspect = network(rearranged(kernel, rng, signs, scales))
    verification = keras_wm.verify(suspect, key, reordered=True)
    assert verification.log10_p < keras_wm.verify(suspect, key).log10_p - 200
    assert verification.ber < 0.01


@pytest.mark.parametrize("recipient", [False, True])
def test_they_are_put_back_behind_an_anchor_too(key, rng, recipient):
    directions, _ = np.linalg.qr(rng.normal(size=(SHAPE[2] * 9, 20)))
    anchored = (key.for_recipient("a") if recipient else key).with_anchor(
        keras_wm.Anchor(np.full(20, 4.0), directions)
    )
    kernel = with_mark(rng.normal(size=SHAPE), anchored, 2)
    suspect = network(rearranged(kernel, rng, scales=False))
    verification = keras_wm.verify(suspect, anchored, reordered=True)
    assert verification.log10_p < keras_wm.verify(suspect, anchored).log10_p - 60
    assert verification.ber < 0.06


def test_the_mean_filter_needs_only_the_signs(rng):
    key = fixed_key(64, filters="mean")
    kernel = with_mark(rng.normal(size=SHAPE), key, 2) * np.tile([1, -1], 16)
    kernel = rearranged(kernel, rng, signs=False)
    assert keras_wm.verify(network(kernel), key).log10_p > -3
    verification = keras_wm.verify(network(kernel), key, reordered=True)
    assert verification.log10_p < -20
    assert verification.tried == 1 + 2
    assert verification.finding.log10_arrangements == pytest.approx(32 * log10(2))


def test_the_p_value_is_multiplied_by_the_number_of_arrangements(key, kernel, rng):
    suspect = network(rearranged(kernel, rng, signs=True))
    verification = keras_wm.verify(suspect, key, reordered=True)
    assert verification.tried == 1 + 4
    # Four families of arrangements, in one of two attempts.
    tests = log10(factorial(32)) + 32 * log10(2) + log10(4 * 2)
    assert verification.log10_p == pytest.approx(verification.detection.log10_p + tests)


def test_the_report_states_the_changes_that_were_undone(key, kernel, rng):
    verification = keras_wm.verify(
        network(rearranged(kernel, rng)), key, reordered=True
    )
    rows = dict(verification.rows())
    assert "channels moved" in rows["reordered"]
    assert "bits wrong" in rows["unaligned"]
    attempt = json.loads(json.dumps(verification.to_dict()))["attempts"]["reordered"]
    assert attempt["moved"] > 0
    assert attempt["flipped"] > 0
    assert attempt["log10_arrangements"] == pytest.approx(
        verification.finding.log10_arrangements
    )


def test_no_other_arrangement_has_a_higher_sum_of_scores(rng):
    """The result is compared with all 5! 2^5 arrangements.

    The assignment maximises the gain, the sum of s_j x_j . u_j over all bits.
    """
    key = fixed_key(12, groups=3)
    kernel = rng.normal(size=(12, 5))
    units = kernel / np.linalg.norm(kernel, axis=0)
    mark = key.for_shape(kernel.shape)
    matrix, weights = mark.matrix, mark.filter_weights

    def gain(arranged):
        rows = matrix * (2.0 * mark.message - 1)[:, None]
        directions = arranged @ weights.T
        return sum(row @ directions[:, j % 3] for j, row in enumerate(rows))

    orders = list(itertools.permutations(range(5)))
    signs = [np.array(choice) for choice in itertools.product([-1, 1], repeat=5)]
    flipped = [units * sign for sign in signs]
    moved = [units[:, list(order)] for order in orders]
    both = [arranged * sign for arranged in moved for sign in signs]
    families = [[units], flipped, moved, both]
    for result, family in zip(arrangements(kernel, key), families, strict=True):
        assert 10**result.log10_family == pytest.approx(len(family))
        assert gain(result.kernel) == pytest.approx(max(map(gain, family)))
        distances = [np.abs(result.kernel - arranged).max() for arranged in family]
        assert min(distances) < 1e-12


@pytest.mark.parametrize("shape", [(40, 3), (30, 4)])
def test_corrected_p_values_of_unmarked_kernels_are_not_too_small(shape, rng):
    """At most 5 % of 300 kernels have p < 0.05: 40 of them have a probability < 1e-7.

    The kernels have few filters, because there the correction is tightest.
    """
    alarms = 0
    for trial in range(300):
        key = fixed_key(24, groups=2).for_recipient(str(trial))
        kernel = rng.normal(size=shape) + 0.5
        results = [
            detect(arranged.kernel, key).log10_p + arranged.log10_family
            for arranged in arrangements(kernel, key)
        ]
        alarms += min(results) + log10(len(results)) < log10(0.05)
    assert alarms < 40


def test_unmarked_networks_give_no_false_alarm(key, rng):
    """10 verdicts at p < 1e-9: the false alarm rate is below 1e-8."""
    for _ in range(10):
        kernel = rng.normal(size=SHAPE)
        verification = keras_wm.verify(network(kernel), key, reordered=True)
        assert not verification.marked


def test_a_kernel_of_very_many_filters_is_not_rearranged(key, rng):
    kernel = rng.normal(size=(64, MAX_FILTERS + 1))
    assert list(arrangements(kernel, key)) == []


def test_kernels_without_information_are_not_evidence(key):
    for value in (0.0, 1.0, np.nan):
        suspect = network(np.full(SHAPE, value))
        assert not keras_wm.verify(suspect, key, reordered=True).marked


def test_changes_of_the_input_channels_are_not_undone(key, kernel, rng):
    """This needs a reference model, as the documentation says."""
    suspect = network(rearranged(kernel[:, :, rng.permutation(16)], rng))
    assert not keras_wm.verify(suspect, key, reordered=True).marked
