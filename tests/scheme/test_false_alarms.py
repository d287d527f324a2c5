"""False alarms of unrelated keys occur as often as their p-values state.

benchmarks/false_alarms.py is the long version, with 2,000 keys and 20 networks.
"""

import numpy as np
import pytest
from scipy import stats

from keras_wm import detect
from tests.conftest import unrelated_keys

KEYS = 300


@pytest.fixture(scope="module")
def kernels(marked):
    """The trained kernels of a network. One of them carries a mark of another key."""
    arrays = [np.asarray(weight) for weight in marked.model.trainable_weights]
    return [array for array in arrays if array.ndim > 1]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_p_values_of_scores_are_uniform_in_a_trained_kernel(kernels, index):
    # Kolmogorov-Smirnov test of independent keys, with a false alarm rate of 1e-6.
    keys = unrelated_keys(KEYS, bits=64)
    p = [10 ** detect(kernels[index], key).log10_p_soft for key in keys]
    assert stats.kstest(p, "uniform").pvalue > 1e-6
    assert min(p) > 1e-9 / KEYS


@pytest.mark.parametrize("projection", ["random", "direct", "diff"])
def test_matches_are_binomial_in_a_trained_kernel(kernels, projection):
    # The message is derived from the secret, so each bit is correct with probability
    # 1/2 for every projection. A deviation of 5.2 standard deviations is a false alarm
    # with a rate of 2e-7.
    keys = unrelated_keys(KEYS, 64, projection)
    matches = sum(detect(kernels[1], key).matches for key in keys)
    assert abs(matches - KEYS * 32) < 5.2 * np.sqrt(KEYS * 16)
