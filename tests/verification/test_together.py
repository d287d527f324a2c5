"""The test of all slots together: its p-value, and marks that only it finds."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import keras_wm
from keras_wm.verification.together import log10_p_of_product
from tests.conftest import fixed_key, unrelated_keys
from tests.marked_model import with_mark

SHAPE, COUNT = (60, 40), 6
KEY = fixed_key(64)


def written(path, kernels):
    """Returns a file of kernels without a config, in another order than marked."""
    with h5py.File(path, "w") as file:
        for number, index in enumerate(
            np.random.default_rng(4).permutation(len(kernels))
        ):
            file[f"layers/dense_{number}/vars/0"] = kernels[index]
    return path


def kernels_with(strength, rng, key=KEY):
    """Returns kernels that carry the mark in a slot each; without it at strength 0."""
    return [
        with_mark(rng.normal(size=SHAPE), key.in_slot(slot), strength)
        for slot in range(COUNT)
    ]


@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=40))
def test_the_p_value_of_a_product_is_that_of_fishers_test(p):
    expected = stats.combine_pvalues(p, method="fisher").pvalue
    found = 10 ** log10_p_of_product([np.log10(value) for value in p])
    assert found == pytest.approx(expected, rel=1e-6)


def test_it_does_not_underflow():
    alone = log10_p_of_product([-400.0])
    assert alone == pytest.approx(-400)
    # The product of two p-values is below t with probability t - t ln t.
    both = log10_p_of_product([-400.0, -300.0])
    assert both == pytest.approx(-700 + np.log10(1 + 700 * np.log(10)))


def test_a_mark_that_is_weak_in_each_kernel_is_found_in_all_together(tmp_path, rng):
    path = written(tmp_path / "a.weights.h5", kernels_with(0.08, rng))
    found = keras_wm.verify(path, KEY, slots=COUNT)
    single, joint = found.attempts
    assert single.log10_p_corrected > -9
    assert found.verdict == "marked"
    assert found.finding.name == joint.name == "together"
    # Two attempts are counted, and all tests of single kernels.
    assert (joint.counted, single.counted) == (2, 2 * COUNT * COUNT)
    assert found.tried == COUNT * COUNT + 1
    assert found.bits == COUNT * KEY.bits
    # The report names each kernel, and no p-value of bits that were chosen.
    text = repr(found)
    assert "slot 3: " not in text and text.count(", slot ") >= COUNT
    assert "p of the bits" not in text
    assert json.loads(json.dumps(found.to_dict()))["attempts"]["together"]["bits"]


def test_half_of_the_kernels_are_enough(tmp_path, rng):
    kernels = kernels_with(0.2, rng)
    kernels[::2] = [rng.normal(size=SHAPE) for _ in kernels[::2]]
    path = written(tmp_path / "a.weights.h5", kernels)
    assert keras_wm.verify(path, KEY, slots=COUNT).verdict == "proven"


def test_unmarked_kernels_have_uniform_p_values_however_similar_they_are(tmp_path, rng):
    """The false alarm rate of this test is 1e-4, at 1 % and at 10 %."""
    base = rng.normal(size=SHAPE)
    kernels = [base + 0.1 * rng.normal(size=SHAPE) for _ in range(COUNT)]
    path = written(tmp_path / "a.weights.h5", kernels)
    keys = unrelated_keys(200)
    found = [keras_wm.verify(path, key, slots=3).attempts[1] for key in keys]
    p = 10 ** np.array([result.log10_p for result in found])
    for level in (0.01, 0.1):
        assert np.sum(p < level) <= stats.binom.ppf(1 - 5e-5, len(p), level)


def test_a_layer_that_is_named_is_not_tested_together(tmp_path, rng):
    path = written(tmp_path / "a.weights.h5", kernels_with(0.2, rng))
    name = keras_wm.inspect(path).kernels[0].layer
    assert len(keras_wm.verify(path, KEY, name, slots=COUNT).attempts) == 1
    assert len(keras_wm.verify(path, KEY).attempts) == 1


def test_without_a_kernel_that_fits_nothing_is_found(tmp_path):
    path = written(tmp_path / "a.weights.h5", [np.ones((4, 1))])
    found = keras_wm.verify(path, KEY, slots=3)
    assert not found.marked and found.log10_p == 0
