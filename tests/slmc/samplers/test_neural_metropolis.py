"""Local updates of attention, against the linear model and sums over configurations.

Statistical tests fail beyond 4 standard errors: once in 16,000 seeds each.
"""

import numpy as np
import pytest

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning.fit import set_linear
from keras_wm.slmc.models.effective_model import effective_model, log_weights
from keras_wm.slmc.models.linear_model import LinearModel, shell_sums
from keras_wm.slmc.observables import shell_correlations
from keras_wm.slmc.samplers.chain import run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.spins import random_spins
from tests.slmc.chains import CORRELATIONS, FAR, agrees, with_random_weights


def test_attention_proposes_what_the_linear_model_does_where_it_attends_to_nothing(six):
    model, linear = six
    made = effective_model(model.lattice, 9, blocks=0)
    set_linear(made, linear[9])
    spins = random_spins(np.random.default_rng(13), 5, 36)
    proposal = NeuralMetropolis(made, sweeps=6, step=2.0)
    np.testing.assert_allclose(
        proposal.log_weight(spins), linear[9].log_weight(spins), atol=1e-3
    )
    neural = SelfLearning(model, proposal, 100, seed=14)
    bath = SelfLearning(model, HeatBath(linear[9], 6), 100, seed=15)
    found, expected = run(neural, 20, 8), run(bath, 20, 8)
    for name in ("acceptance", "ms2", "energy"):
        # Of 100 chains, each the mean over its own steps.
        one, other = found[name].mean(axis=0), expected[name].mean(axis=0)
        error = np.hypot(one.std(), other.std()) / np.sqrt(100)
        assert abs(one.mean() - other.mean()) < FAR * error, name
    np.testing.assert_allclose(
        neural.effective, proposal.log_weight(neural.spins), atol=1e-3
    )


def strange_model():
    """Attention that matters, in a model that has nothing to do with electrons."""
    made = effective_model(square_lattice(2), 2, blocks=2, heads=2)
    return with_random_weights(made, 0.3, seed=16)


@pytest.mark.backends
def test_local_updates_of_attention_sample_its_own_weight():
    """Against configurations drawn evenly, weighted by the model."""
    made, lattice = strange_model(), square_lattice(2)
    rng = np.random.default_rng(17)
    evenly = random_spins(rng, 40_000, 4)
    weights = np.exp(log_weights(made, evenly) - log_weights(made, evenly).max())
    sums = shell_sums(evenly, lattice)
    expected = weights @ sums / weights.sum()
    spread = (weights[:, None] * (sums - expected)).std(axis=0) / weights.mean() / 200
    proposal = NeuralMetropolis(made, sweeps=10, step=2.0)
    spins = random_spins(rng, 2000, 4)
    spins, log_weight = proposal.propose(rng, spins, proposal.log_weight(spins))
    np.testing.assert_allclose(log_weight, log_weights(made, spins), atol=1e-4)
    found = shell_sums(spins, lattice)
    errors = np.hypot(spread, found.std(axis=0) / np.sqrt(2000))
    assert np.all(np.abs(found.mean(axis=0) - expected) < FAR * errors)
    # Evenly drawn, they would be far from it.
    assert np.any(np.abs(sums.mean(axis=0) - expected) > 5 * errors)


@pytest.mark.backends
def test_self_learning_with_attention_is_exact_whatever_it_proposes():
    model = DoubleExchange(square_lattice(2), beta=5.0)
    chain = SelfLearning(model, NeuralMetropolis(strange_model(), 3, 2.0), 600, 18)
    observables = {**CORRELATIONS, "energy": lambda one: one.electrons.energy}
    series = run(chain, 25, 12, observables | {"rate": lambda one: one.accepted})
    assert 0.05 < series["rate"].mean() < 0.95
    evenly = random_spins(np.random.default_rng(19), 40_000, 4)
    electrons = model.electrons(evenly)
    weights = np.exp(electrons.log_weight - electrons.log_weight.max())
    values = {
        "energy": electrons.energy,
        "S.S": shell_correlations(evenly, model.lattice)[:, 1],
    }
    found = {"energy": series["energy"], "S.S": series["S.S"][..., 1]}
    for name, each in values.items():
        expected = weights @ each / weights.sum()
        spread = (weights * (each - expected)).std() / weights.mean() / 200
        assert agrees(found[name], expected, spread), name


def test_the_step_of_attention_adapts_only_while_thermalising():
    cold = effective_model(square_lattice(2), 1)
    set_linear(cold, LinearModel(square_lattice(2), np.array([-200.0])))
    proposal = NeuralMetropolis(cold, sweeps=4, step=2.0)
    chain = SelfLearning(DoubleExchange(square_lattice(2), 1.0), proposal, 20, seed=22)
    run(chain, 0, 15)
    adapted = proposal.step
    assert adapted < 1.0
    run(chain, 5)
    assert proposal.step == adapted
