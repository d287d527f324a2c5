"""Samples are split by chains."""

import numpy as np
import pytest

from keras_wm.slmc.learning.samples import Samples
from tests.slmc.learning.data import hot_samples


def test_chains_are_split_as_a_whole_and_without_loss():
    rng = np.random.default_rng(4)
    spins = rng.normal(size=(7, 10, 16, 3))
    # Equal configurations, as after rejected proposals.
    spins[3:] = spins[3]
    log_weights = np.arange(70.0).reshape(7, 10)
    samples = Samples.from_series({"spins": spins, "log_weight": log_weights})
    first, rest = samples.split_chains(0.3, seed=4)
    assert (len(first), len(rest)) == (21, 49)
    both = first + rest
    np.testing.assert_array_equal(np.sort(both.log_weights), np.arange(70))
    for part in (first, rest):
        indices = part.log_weights.astype(int)
        np.testing.assert_array_equal(part.spins, spins.reshape(70, 16, 3)[indices])
        np.testing.assert_array_equal(part.chains, indices % 10)
    assert not set(first.chains) & set(rest.chains)


def test_a_single_chain_cannot_be_split():
    with pytest.raises(ValueError, match="samples of 1 chains"):
        hot_samples(1).split_chains(0.5, seed=1)
