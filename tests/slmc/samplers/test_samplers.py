"""Samplers of the exact model, against closed forms, exhaustive sums and each other.

Statistical tests fail beyond 4 standard errors: once in 16,000 seeds each.
"""

import numpy as np
import pytest
from scipy import stats

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import dimer, square_lattice
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
    FAR,
    agrees,
    one_bond,
    with_random_weights,
)


def dimer_chain(kind, beta, J=1.0, chains=400):
    model = DoubleExchange(dimer(), beta, J=J)
    if kind == "metropolis":
        return Metropolis(model, chains, seed=1, step=2.0)
    # A coupling that is only about right.
    return SelfLearning(model, HeatBath(one_bond(-0.5), 2), chains, seed=1)


@pytest.mark.parametrize("kind", ["metropolis", "self-learning"])
@pytest.mark.parametrize(
    ("beta", "J", "known"),
    [(5.0, 1.0, -0.166396), (10.0, 1.0, -0.341709), (5.0, 2.0, -0.370017)],
)
def test_two_spins_have_the_correlation_of_the_integral(kind, beta, J, known):
    expected = closed_forms.dimer_average(beta, J)
    assert expected == pytest.approx(known, abs=1e-6)
    series = run(dimer_chain(kind, beta, J), 250, 20, CORRELATIONS)["S.S"][..., 0]
    assert blocked_error(series, 1) < 0.006
    assert agrees(series, expected)


@pytest.mark.parametrize("kind", ["metropolis", "self-learning"])
def test_two_spins_have_every_angle_as_often_as_its_weight(kind):
    chain = dimer_chain(kind, 10.0, chains=4000)
    # One sample a chain, so that all are independent.
    cosines = run(chain, 1, 40, CORRELATIONS)["S.S"].ravel()
    edges = np.linspace(-1, 1, 11)
    fine = np.linspace(-1, 1, 10_001)
    weight = closed_forms.dimer_weight((fine[1:] + fine[:-1]) / 2, 10.0, 1.0)
    expected = weight.reshape(10, -1).sum(axis=1)
    expected *= len(cosines) / expected.sum()
    counts = np.histogram(cosines, edges)[0]
    # By chance once in 10,000 seeds.
    assert stats.chisquare(counts, expected).pvalue > 1e-4


def test_four_by_four_is_a_cube_in_four_dimensions():
    """(1, 1) and (2, 0) are as far on it, so their correlations are the same."""
    lattice = square_lattice(4)
    model = DoubleExchange(lattice, beta=10.0)
    linear = LinearModel(lattice, np.array([-0.13, 0.1, 0.1, -0.05, 0.2]))
    chain = SelfLearning(model, HeatBath(linear, 6), 128, seed=4)
    series = run(chain, 80, 20, CORRELATIONS)["S.S"]
    difference = series[..., 1] - series[..., 2]
    assert blocked_error(difference, 1) < 0.004
    assert agrees(difference, 0.0)
    # And it is not a matter of all correlations being small.
    assert abs(series[..., 0].mean()) > 0.03


class Exact(Proposal):
    """Proposes by the exact model itself."""

    def __init__(self, model):
        super().__init__(1, "random")
        self.model = model

    def log_weight(self, spins):
        return self.model.log_weight(spins)

    def propose(self, rng, spins, log_weight):
        local = Metropolis(self.model, len(spins), int(rng.integers(1 << 30)), spins)
        local.advance()
        return local.spins, local.electrons.log_weight


def test_a_perfect_surrogate_is_always_accepted():
    model = DoubleExchange(square_lattice(3), beta=8.0)
    series = run(SelfLearning(model, Exact(model), 50, seed=5), 10)
    assert series["acceptance"].mean() == 1.0
    np.testing.assert_allclose(series["delta"], 0, atol=1e-10)


def test_a_bad_surrogate_is_rarely_accepted_and_changes_no_average():
    bad = SelfLearning(
        DoubleExchange(dimer(), 10.0), HeatBath(one_bond(2.5), 2), 400, seed=6
    )
    series = run(bad, 400, 50, {**CORRELATIONS, "acceptance": lambda one: one.accepted})
    assert series["acceptance"].mean() < 0.5
    assert agrees(series["S.S"][..., 0], closed_forms.dimer_average(10.0, 1))


def test_hot_spins_are_independent():
    lattice = square_lattice(4)
    chain = Metropolis(DoubleExchange(lattice, beta=1e-3), 64, seed=7, step=10.0)
    series = run(chain, 60, 5)
    assert series["acceptance"].mean() > 0.999
    for name in ("m2", "ms2"):
        assert agrees(series[name], 1 / 16)


@pytest.mark.parametrize(("name", "seed"), [("six", 21), ("cold_six", 22)])
def test_averages_are_those_of_another_program(name, seed, request):
    """Of a prototype with plain Metropolis, which shares no code with this one."""
    known = {
        "six": {"ms2": (0.0606, 0.0007), "m2": (0.0320, 0.0003)},
        "cold_six": {"ms2": (0.2901, 0.0045), "m2": (0.0296, 0.0009)},
    }
    model, linear = request.getfixturevalue(name)
    chain = SelfLearning(model, HeatBath(linear[9], 8), 200, seed=seed)
    series = run(chain, 30, 10)
    for observable, (expected, error) in known[name].items():
        assert agrees(series[observable], expected, error), observable


def test_in_the_cold_a_truncated_linear_model_is_rarely_accepted(cold_six):
    model, linear = cold_six
    accepted = {}
    for shells, one in linear.items():
        chain = SelfLearning(model, HeatBath(one, 8), 200, seed=23)
        accepted[shells] = run(chain, 25, 10)["acceptance"].mean()
    # What is known, and as much as fits to other samples differ.
    assert accepted[6] == pytest.approx(0.365, abs=0.035)
    assert accepted[9] == pytest.approx(0.654, abs=0.03)


@pytest.mark.parametrize(
    ("shells", "expected", "most"), [(6, 0.62, 0.03), (9, 0.92, 0.02)]
)
def test_the_acceptance_is_the_reference_and_that_of_the_error_function(
    six, shells, expected, most
):
    model, linear = six
    chain = SelfLearning(model, HeatBath(linear[shells], 8), 200, seed=9)
    series = run(chain, 25, 8)
    acceptance = series["acceptance"].mean()
    assert acceptance == pytest.approx(expected, abs=most)
    predicted = predicted_acceptance(series["delta"].var())
    assert acceptance == pytest.approx(predicted, abs=0.02)


def test_the_mean_of_the_ratio_of_weights_is_one(six):
    """Creutz's identity, which a wrong ratio or a wrong beta breaks."""
    model, linear = six
    chain = SelfLearning(model, HeatBath(linear[9], 5), 200, seed=10)
    run(chain, 0, 8)
    ratios = []
    for _ in range(20):
        before = chain.delta
        chain.advance()
        proposed = chain.tried_log_weight - chain.proposal.log_weight(chain.tried)
        ratios.append(np.exp(proposed - before))
    ratios = np.ravel(ratios)
    assert abs(ratios.mean() - 1) < FAR * ratios.std() / np.sqrt(len(ratios))


def test_self_learning_and_metropolis_agree():
    model = DoubleExchange(square_lattice(4), beta=20.0)
    linear = LinearModel(model.lattice, np.array([-0.2, 0.2, 0.2, -0.1, 0.4]))
    quick = SelfLearning(model, HeatBath(linear, 10), 64, seed=11)
    run(quick, 0, 20)
    plain = Metropolis(model, 64, seed=12, spins=quick.spins, step=1.0)
    slow, fast = run(plain, 120), run(quick, 60)
    for name in ("m2", "ms2", "energy"):
        error = blocked_error(fast[name], 1)
        assert agrees(slow[name], fast[name].mean(), error), name


def unusual(kind):
    """Chains of electrons that are neither half filled nor on a square."""
    model = DoubleExchange(square_lattice(2, 3), 4.0, mu=0.7, J=-2.0, t=0.8)
    if kind == "metropolis":
        return Metropolis(model, 256, seed=24, step=2.0)
    proposals = {
        "heat bath": lambda: HeatBath(
            LinearModel(model.lattice, np.array([-0.3, 0.2])), 3, "coin"
        ),
        "attention": lambda: NeuralMetropolis(
            with_random_weights(effective_model(model.lattice, 2, 1), 0.2, seed=27),
            *(3, 1.0, "coin"),
        ),
    }
    return SelfLearning(model, proposals[kind](), 256, seed=25)


@pytest.mark.parametrize("kind", ["metropolis", "heat bath", "attention"])
def test_unusual_electrons_have_the_averages_of_weighted_spins(kind):
    chain = unusual(kind)
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
    series = run(chain, 150, 30)
    for name, values in expected.items():
        mean = weights @ values
        error = np.sqrt(np.square(weights * (values - mean)).sum())
        assert agrees(series[name], mean, error), name


def test_the_step_adapts_only_while_thermalising():
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
        (lambda model: Metropolis(model, 0, 1), "one chain or more"),
        (lambda model: Metropolis(model, 2, 1, step=0.0), "step above 0"),
        (lambda model: Metropolis(model, 2, 1, np.ones((2, 2, 3))), "unit vectors"),
        (lambda model: Metropolis(model, 2, 1, [[[0, 0, 1]] * 2]), "spins of 2 chains"),
        (lambda model: HeatBath(one_bond(1.0), sweeps=0), "one sweep or more"),
        (lambda model: HeatBath(one_bond(1.0), order="any"), "one of 'random', 'coin'"),
    ],
)
def test_what_cannot_be_run_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(DoubleExchange(dimer(), 1.0))
