"""Online learning, from the linear model to attention."""

import numpy as np
import pytest

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.learning.online import Schedule, learn, learn_from, learn_linear
from keras_wm.slmc.models.linear_model import fit_linear
from tests.slmc.chains import MAX_DEVIATION
from tests.slmc.learning.data import LATTICE, hot_samples

SHORT = Schedule(chains=64, proposals=8, sweeps=4, epochs=25)


@pytest.mark.parametrize("wrong", [{"chains": 0}, {"epochs": -1}, {"learning_rate": 0}])
def test_a_schedule_without_positive_numbers_raises_an_error(wrong):
    with pytest.raises(
        ValueError, match=f"positive number. Received: {next(iter(wrong))}"
    ):
        Schedule(**wrong)


def test_a_schedule_of_a_single_chain_raises_an_error():
    with pytest.raises(ValueError, match=r"at least two chains.*chains=1"):
        Schedule(chains=1)


def test_another_seed_gives_other_random_numbers():
    """Chains that share their random numbers would become equal after a while."""
    model = DoubleExchange(LATTICE, beta=10.0)
    spins = [learn_linear(model, 1, SHORT, seed)[1] for seed in (0, 1)]
    correlation = np.sum(spins[0] * spins[1], axis=-1).mean()
    # The mean over 64 chains of 16 independent spins is 0 +- 1 / sqrt(3 * 64 * 16).
    # The spins of a chain are correlated, which 0.05 allows for.
    assert abs(correlation) < MAX_DEVIATION / np.sqrt(3 * 64 * 16) + 0.05


@pytest.mark.study
def test_online_learning_raises_the_acceptance():
    model = DoubleExchange(LATTICE, beta=10.0)
    linear, deep = learn(model, shells=1, blocks=1, schedule=SHORT, seed=1)
    assert (linear.blocks, linear.fitted) == (0, 64 * 8)
    assert (deep.blocks, deep.fitted) == (1, 64 * 8)
    assert deep.variance < 0.8 * linear.variance
    assert deep.acceptance > linear.acceptance + 0.03


@pytest.mark.study
def test_learning_from_samples_measures_the_variance_on_held_out_chains():
    samples = hot_samples(1170)
    linear, deep = learn_from(LATTICE, samples, 1, 1, SHORT, seed=2)
    held_out, kept = samples.split_chains(0.125, seed=2)
    assert linear.fitted == deep.fitted == len(kept)
    expected = fit_linear(LATTICE, kept.spins, kept.log_weights, 1)
    deltas = held_out.log_weights - expected.log_weight(held_out.spins)
    assert linear.variance == pytest.approx(deltas.var(), rel=1e-3)
    assert deep.variance < 0.8 * linear.variance
    assert np.isnan(deep.acceptance)
