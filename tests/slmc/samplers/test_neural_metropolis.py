"""Local updates of attention agree with the linear model and with weighted averages.

Statistical tests allow 4 standard errors: a false alarm for one seed in 16,000 each.
"""

import numpy as np
import pytest

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.models.effective_model import (
    effective_model,
    log_weights,
    set_linear,
)
from keras_wm.slmc.models.linear_model import LinearModel, shell_sums
from keras_wm.slmc.observables import shell_correlations
from keras_wm.slmc.samplers.chain import run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.spins import random_spins
from keras_wm.slmc.statistics import blocked_error
from tests.slmc.chains import (
    CORRELATIONS,
    MAX_DEVIATION,
    agrees,
    with_random_weights,
)


def test_without_blocks_the_chains_have_the_averages_of_the_heat_bath():
    lattice = square_lattice(4)
    model = DoubleExchange(lattice, beta=10.0)
    linear = LinearModel(lattice, np.array([-0.13, 0.1, 0.1, -0.05, 0.2]))
    effective = effective_model(lattice, shells=None, blocks=0)
    set_linear(effective, linear)
    spins = random_spins(np.random.default_rng(13), 5, 16)
    proposal = NeuralMetropolis(effective, sweeps=6, step=2.0)
    np.testing.assert_allclose(
        proposal.log_weight(spins), linear.log_weight(spins), atol=1e-3
    )
    neural = SelfLearning(model, proposal, 100, seed=14)
    heat_bath = SelfLearning(model, HeatBath(linear, 6), 100, seed=15)
    series, expected = run(neural, 20, 8), run(heat_bath, 20, 8)
    for name in ("acceptance", "ms2", "energy"):
        error = blocked_error(expected[name], 1)
        assert agrees(series[name], expected[name].mean(), error), name
    np.testing.assert_allclose(
        neural.effective, proposal.log_weight(neural.spins), atol=1e-3
    )


@pytest.fixture(scope="module")
def unfitted():
    """Attention with random weights, which matter but fit nothing."""
    model = effective_model(square_lattice(2), 2, blocks=2, heads=2)
    return with_random_weights(model, 0.3, seed=16)


@pytest.mark.backends
def test_local_updates_of_attention_sample_its_own_weight(unfitted):
    """Averages agree with those of weighted random configurations."""
    lattice = square_lattice(2)
    rng = np.random.default_rng(17)
    uniform = random_spins(rng, 40_000, 4)
    log_weight = log_weights(unfitted, uniform)
    weights = np.exp(log_weight - log_weight.max())
    sums = shell_sums(uniform, lattice)
    expected = weights @ sums / weights.sum()
    spread = (weights[:, None] * (sums - expected)).std(axis=0) / weights.mean() / 200
    proposal = NeuralMetropolis(unfitted, sweeps=10, step=2.0)
    spins = random_spins(rng, 2000, 4)
    spins, log_weight = proposal.propose(rng, spins, proposal.log_weight(spins))
    np.testing.assert_allclose(log_weight, log_weights(unfitted, spins), atol=1e-4)
    sampled = shell_sums(spins, lattice)
    errors = np.hypot(spread, sampled.std(axis=0) / np.sqrt(2000))
    assert np.all(np.abs(sampled.mean(axis=0) - expected) < MAX_DEVIATION * errors)
    # The weights matter: uniform configurations have other averages.
    assert np.any(np.abs(sums.mean(axis=0) - expected) > 5 * errors)


@pytest.mark.backends
def test_self_learning_with_unfitted_attention_is_exact(unfitted):
    model = DoubleExchange(square_lattice(2), beta=5.0)
    chain = SelfLearning(model, NeuralMetropolis(unfitted, 3, 2.0), 600, 18)
    observables = {
        **CORRELATIONS,
        "energy": lambda chain: chain.electrons.energy,
        "acceptance": lambda chain: chain.accepted,
    }
    series = run(chain, 25, 12, observables)
    assert 0.05 < series["acceptance"].mean() < 0.95
    uniform = random_spins(np.random.default_rng(19), 40_000, 4)
    electrons = model.electrons(uniform)
    weights = np.exp(electrons.log_weight - electrons.log_weight.max())
    diagonal = shell_correlations(uniform, model.lattice)[:, 1]
    for values, sampled in (
        (electrons.energy, series["energy"]),
        (diagonal, series["S.S"][..., 1]),
    ):
        expected = weights @ values / weights.sum()
        spread = (weights * (values - expected)).std() / weights.mean() / 200
        assert agrees(sampled, expected, spread)


def test_the_step_size_adapts_during_thermalisation_only():
    cold = effective_model(square_lattice(2), 1)
    set_linear(cold, LinearModel(square_lattice(2), np.array([-200.0])))
    proposal = NeuralMetropolis(cold, sweeps=4, step=2.0)
    chain = SelfLearning(DoubleExchange(square_lattice(2), 1.0), proposal, 20, seed=22)
    run(chain, 0, 15)
    adapted = proposal.step
    assert adapted < 1.0
    run(chain, 5)
    assert proposal.step == adapted
