"""Keys that marked nothing find nothing, as often as their p-values say.

benchmarks/false_alarms.py is the long version: 2,000 keys and 20 networks.
"""

import hashlib

import numpy as np
import pytest
from scipy import stats

from keras_wm import detect
from tests.conftest import fixed_key

KEYS = 300


def random_key(number, projection="random"):
    secret = hashlib.sha256(f"false alarms {number}".encode()).digest()
    return fixed_key(64, projection, secret=secret)


@pytest.fixture(scope="module")
def kernels(marked):
    """The trained kernels of a network; the mark of its own key is in one of them."""
    arrays = [np.asarray(weight) for weight in marked.model.trainable_weights]
    return [array for array in arrays if array.ndim > 1]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_p_values_of_scores_are_uniform_in_a_trained_kernel(kernels, index):
    # False alarm below 1e-6: Kolmogorov-Smirnov of independent keys.
    found = [detect(kernels[index], random_key(number)) for number in range(KEYS)]
    p = [10**one.log10_p_soft for one in found]
    assert stats.kstest(p, "uniform").pvalue > 1e-6
    assert min(p) > 1e-9 / KEYS


@pytest.mark.parametrize("projection", ["random", "direct", "diff"])
def test_matches_are_binomial_in_a_trained_kernel(kernels, projection):
    # The message is derived, so that each bit is right with probability 1/2 whatever
    # the projection: false alarm 2e-7 (5.2 standard deviations).
    found = [detect(kernels[1], random_key(n, projection)) for n in range(KEYS)]
    matches = np.array([one.matches for one in found])
    assert abs(matches.sum() - KEYS * 32) < 5.2 * np.sqrt(KEYS * 16)
