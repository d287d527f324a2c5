"""Samplers agree with closed forms, weighted averages, other programs, each other.

Statistical tests allow 4 standard errors: a false alarm for one seed in 16,000 each.
"""

import numpy as np
import pytest
from scipy import stats

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.models.effective_model import effective_model
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.observables import squared_magnetisation
from keras_wm.slmc.samplers.chain import run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.metropolis import Metropolis
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.proposal import Proposal
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.spins import random_spins
from keras_wm.slmc.statistics import blocked_error, predicted_acceptance
from tests.slmc import closed_forms
from tests.slmc.chains import (
    CORRELATIONS,
    FALSE_ALARM,
    MAX_DEVIATION,
    agrees,
    one_bond,
    with_random_weights,
)
from tests.slmc.closed_forms import dimer

# Chains long enough for these statistics take half a minute.
pytestmark = pytest.mark.study


def dimer_chain(kind, beta, J=1.0, chains=400):
    model = DoubleExchange(dimer(), beta, J=J)
    if kind == "metropolis":
        return Metropolis(model, chains, seed=1, step=2.0)
    # The coupling is only roughly right.
    return SelfLearning(model, HeatBath(one_bond(-0.5), 2), chains, seed=1)


@pytest.mark.parametrize("kind", ["metropolis", "self-learning"])
@pytest.mark.parametrize(
    ("beta", "J", "known"),
    [(5.0, 1.0, -0.166396), (10.0, 1.0, -0.341709), (5.0, 2.0, -0.370017)],
)
def test_the_correlation_of_a_dimer_agrees_with_the_integral(kind, beta, J, known):
    expected = closed_forms.dimer_average(beta, J)
    assert expected == pytest.approx(known, abs=1e-6)
    series = run(dimer_chain(kind, beta, J), 250, 20, CORRELATIONS)["S.S"][..., 0]
    assert blocked_error(series, 1) < 0.006
    assert agrees(series, expected)


@pytest.mark.parametrize("kind", ["metropolis", "self-learning"])
def test_the_angles_of_a_dimer_have_the_exact_distribution(kind):
    chain = dimer_chain(kind, 10.0, chains=4000)
    # One sample per chain, so that all are independent.
    cosines = run(chain, 1, 40, CORRELATIONS)["S.S"].ravel()
    edges = np.linspace(-1, 1, 11)
    fine = np.linspace(-1, 1, 10_001)
    weight = closed_forms.dimer_weight((fine[1:] + fine[:-1]) / 2, 10.0, 1.0)
    expected = weight.reshape(10, -1).sum(axis=1)
    expected *= len(cosines) / expected.sum()
    counts = np.histogram(cosines, edges)[0]
    assert stats.chisquare(counts, expected).pvalue > FALSE_ALARM


def test_four_by_four_sites_have_the_symmetry_of_the_hypercube():
    """The 4 x 4 torus is the 4-cube, where (1, 1) and (2, 0) are equivalent."""
    lattice = square_lattice(4)
    model = DoubleExchange(lattice, beta=10.0)
    linear = LinearModel(lattice, np.array([-0.13, 0.1, 0.1, -0.05, 0.2]))
    chain = SelfLearning(model, HeatBath(linear, 3), 128, seed=4)
    series = run(chain, 80, 20, CORRELATIONS)["S.S"]
    difference = series[..., 1] - series[..., 2]
    assert blocked_error(difference, 1) < 0.004
    assert agrees(difference, 0.0)
    # The correlations themselves are not small.
    assert abs(series[..., 0].mean()) > 0.03


class Exact(Proposal):
    """Proposal whose effective model is the exact model."""

    def __init__(self, model):
        super().__init__(1, "random")
        self.model = model

    def log_weight(self, spins):
        return self.model.log_weight(spins)

    def propose(self, rng, spins, log_weight):
        local = Metropolis(self.model, len(spins), int(rng.integers(1 << 30)), spins)
        local.advance()
        return local.spins, local.electrons.log_weight


def test_proposals_of_a_perfect_effective_model_are_always_accepted():
    model = DoubleExchange(square_lattice(3), beta=8.0)
    series = run(SelfLearning(model, Exact(model), 50, seed=5), 10)
    assert series["acceptance"].mean() == 1.0
    np.testing.assert_allclose(series["delta"], 0, atol=1e-10)


def test_a_bad_effective_model_lowers_the_acceptance_but_changes_no_average():
    bad = SelfLearning(
        DoubleExchange(dimer(), 10.0), HeatBath(one_bond(2.5), 2), 400, seed=6
    )
    series = run(
        bad, 250, 50, {**CORRELATIONS, "acceptance": lambda chain: chain.accepted}
    )
    assert series["acceptance"].mean() < 0.5
    assert agrees(series["S.S"][..., 0], closed_forms.dimer_average(10.0, 1))


def test_spins_at_high_temperature_are_independent():
    lattice = square_lattice(2, 4)
    chain = Metropolis(DoubleExchange(lattice, beta=1e-3), 64, seed=7, step=10.0)
    series = run(chain, 60, 5)
    assert series["acceptance"].mean() > 0.999
    for name in ("m2", "ms2"):
        assert agrees(series[name], 1 / 8)


def check_averages(series, known):
    """Compares with averages of a prototype, which shares no code with this program."""
    for name, (expected, error) in known.items():
        assert agrees(series[name], expected, error), name


def test_averages_agree_with_an_independent_program(six):
    known = {"ms2": (0.0606, 0.0007), "m2": (0.0320, 0.0003)}
    check_averages(six[9], known)


@pytest.mark.study
def test_averages_at_low_temperature_agree_with_an_independent_program(cold_six):
    known = {"ms2": (0.2901, 0.0045), "m2": (0.0296, 0.0009)}
    check_averages(cold_six[9], known)


@pytest.mark.parametrize(
    ("shells", "expected", "tolerance"), [(6, 0.62, 0.03), (9, 0.92, 0.02)]
)
def test_the_acceptance_agrees_with_the_reference_and_the_prediction(
    six, shells, expected, tolerance
):
    acceptance = six[shells]["acceptance"].mean()
    assert acceptance == pytest.approx(expected, abs=tolerance)
    predicted = predicted_acceptance(six[shells]["delta"].var())
    assert acceptance == pytest.approx(predicted, abs=0.02)


@pytest.mark.study
def test_at_low_temperature_all_shells_raise_the_acceptance(cold_six):
    acceptance = {n: series["acceptance"].mean() for n, series in cold_six.items()}
    # Values of an independent program. Fits to different samples differ by this much.
    assert acceptance[6] == pytest.approx(0.365, abs=0.035)
    assert acceptance[9] == pytest.approx(0.654, abs=0.03)


def test_the_mean_metropolis_ratio_is_one(six):
    """Creutz's identity. A wrong ratio or a wrong beta would violate it."""
    series = six[9]
    ratios = np.exp(series["proposed delta"][1:] - series["delta"][:-1])
    assert abs(ratios.mean() - 1) < MAX_DEVIATION * ratios.std() / np.sqrt(ratios.size)


def test_self_learning_and_plain_metropolis_agree():
    model = DoubleExchange(square_lattice(2, 4), beta=20.0)
    linear = LinearModel(model.lattice, np.array([-0.2, 0.2, 0.2, -0.1]))
    fast = SelfLearning(model, HeatBath(linear, 10), 64, seed=11)
    run(fast, 0, 20)
    plain = Metropolis(model, 64, seed=12, spins=fast.spins, step=1.0)
    expected, series = run(plain, 80), run(fast, 40)
    for name in ("m2", "ms2", "energy"):
        error = blocked_error(expected[name], 1)
        assert agrees(series[name], expected[name].mean(), error), name


def generic_chain(kind):
    """Chains without special symmetry: away from half filling, on 2 x 3 sites."""
    model = DoubleExchange(square_lattice(2, 3), 4.0, mu=0.7, J=-2.0, t=0.8)
    if kind == "metropolis":
        return Metropolis(model, 256, seed=24, step=2.0)
    proposals = {
        "heat bath": lambda: HeatBath(
            LinearModel(model.lattice, np.array([-0.3, 0.2])), 3, "coin"
        ),
        "attention": lambda: NeuralMetropolis(
            with_random_weights(effective_model(model.lattice, 2, 1), 0.2, seed=27),
            sweeps=3,
            order="coin",
        ),
    }
    return SelfLearning(model, proposals[kind](), 256, seed=25)


@pytest.mark.parametrize("kind", ["metropolis", "heat bath", "attention"])
def test_averages_agree_with_weighted_random_configurations(kind):
    chain = generic_chain(kind)
    lattice = chain.model.lattice
    spins = random_spins(np.random.default_rng(26), 60_000, 6)
    electrons = chain.model.electrons(spins)
    weights = np.exp(electrons.log_weight - electrons.log_weight.max())
    weights /= weights.sum()
    expected = {
        "m2": squared_magnetisation(spins, lattice),
        "energy": electrons.energy,
        "density": electrons.density,
    }
    series = run(chain, 60, 15)
    for name, values in expected.items():
        mean = weights @ values
        error = np.sqrt(np.square(weights * (values - mean)).sum())
        assert agrees(series[name], mean, error), name


def test_the_step_size_adapts_during_thermalisation_only():
    chain = Metropolis(
        DoubleExchange(square_lattice(3), 200.0, J=4.0), 20, seed=18, step=5.0
    )
    run(chain, 0, 40)
    adapted = chain.step
    assert adapted < 4.0
    series = run(chain, 10)
    assert chain.step == adapted
    assert series["acceptance"].mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: Metropolis(model, 0, 1), "at least one chain"),
        (lambda model: Metropolis(model, 2, 1, step=0.0), "step above 0"),
        (lambda model: Metropolis(model, 2, 1, np.ones((2, 2, 3))), "unit vectors"),
        (lambda model: Metropolis(model, 2, 1, [[[0, 0, 1]] * 2]), "spins of 2 chains"),
        (lambda model: HeatBath(one_bond(1.0), sweeps=0), "at least one sweep"),
        (lambda model: HeatBath(one_bond(1.0), order="any"), "one of 'random', 'coin'"),
    ],
)
def test_invalid_settings_raise_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make(DoubleExchange(dimer(), 1.0))
