"""Samplers, against closed forms, exhaustive sums and each other.

Statistical tests fail beyond 4 standard errors: once in 16,000 seeds each.
"""

import numpy as np
import pytest
from scipy import stats

from keras_wm.hosts.spin_fermion.analysis import blocked_error, predicted_acceptance
from keras_wm.hosts.spin_fermion.chain import run
from keras_wm.hosts.spin_fermion.double_exchange import DoubleExchange
from keras_wm.hosts.spin_fermion.effective_model import effective_model, log_weights
from keras_wm.hosts.spin_fermion.heat_bath import HeatBath, drawn_in_field
from keras_wm.hosts.spin_fermion.lattice import dimer, square_lattice
from keras_wm.hosts.spin_fermion.linear_model import (
    LinearModel,
    fit_linear,
    shell_sums,
)
from keras_wm.hosts.spin_fermion.metropolis import Metropolis
from keras_wm.hosts.spin_fermion.neural_metropolis import NeuralMetropolis
from keras_wm.hosts.spin_fermion.observables import shell_correlations
from keras_wm.hosts.spin_fermion.proposal import Proposal
from keras_wm.hosts.spin_fermion.self_learning import SelfLearning
from keras_wm.hosts.spin_fermion.site_order import visits
from keras_wm.hosts.spin_fermion.spins import random_spins
from keras_wm.hosts.spin_fermion.training import set_linear
from tests.spin_fermion import closed_forms

FAR = 4.0
CORRELATIONS = {"S.S": lambda one: shell_correlations(one.spins, one.model.lattice)}


def agrees(series, expected, error=0.0):
    """The mean of independent chains and a figure with an error of its own."""
    error = np.hypot(blocked_error(series, 1), error)
    return abs(series.mean() - expected) < FAR * error


def dimer_chain(kind, beta, J=1.0, chains=400):
    model = DoubleExchange(dimer(), beta, J=J)
    if kind == "metropolis":
        return Metropolis(model, chains, seed=1, step=2.0)
    # A coupling that is only about right.
    return SelfLearning(model, HeatBath(_linear(-0.5), 2), chains, seed=1)


def _linear(coupling, lattice=None):
    return LinearModel(lattice or dimer(), np.array([coupling]))


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


def test_a_spin_in_a_field_is_langevins():
    rng = np.random.default_rng(2)
    for strength in (0.0, 1e-12, 0.5, 30.0):
        fields = strength * np.array([0.6, 0.0, -0.8])
        spins = drawn_in_field(rng, np.tile(fields, (40_000, 1)))
        np.testing.assert_allclose(np.linalg.norm(spins, axis=1), 1, rtol=1e-12)
        along = spins @ [0.6, 0.0, -0.8]
        expected = 1 / np.tanh(strength) - 1 / strength if strength > 1e-6 else 0.0
        assert abs(along.mean() - expected) < FAR * along.std() / 200
        across = spins @ [0.8, 0.0, 0.6]
        assert abs(across.mean()) < FAR * across.std() / 200
        assert abs((across**2 - spins[:, 1] ** 2).mean()) < FAR / 200


def test_sampling_the_linear_model_gives_the_derivatives_of_its_weight():
    """<sum S.S> of one bond is coth K - 1 / K."""
    rng = np.random.default_rng(3)
    proposal = HeatBath(_linear(1.5), sweeps=20)
    spins = random_spins(rng, 20_000, 2)
    spins, log_weight = proposal.propose(rng, spins, proposal.log_weight(spins))
    sums = shell_sums(spins, dimer())[:, 0]
    assert abs(sums.mean() - (1 / np.tanh(1.5) - 1 / 1.5)) < FAR * sums.std() / 141
    np.testing.assert_allclose(log_weight, 1.5 * sums)


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
        DoubleExchange(dimer(), 10.0), HeatBath(_linear(2.5), 2), 400, seed=6
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


@pytest.fixture(scope="module")
def six():
    """A 6 x 6 lattice at beta = 10 with linear models of 6 and all 9 shells."""
    lattice = square_lattice(6)
    model = DoubleExchange(lattice, beta=10.0)
    couplings = np.array([-0.09, 0.12, 0.02, -0.02, 0.05, -0.01, 0.03, -0.01, 0.27])
    guess = SelfLearning(model, HeatBath(LinearModel(lattice, couplings), 5), 200, 8)
    spins, log_weights = [], []
    for step in range(24):
        guess.advance()
        if step >= 4:
            spins.append(guess.spins)
            log_weights.append(guess.electrons.log_weight)
    samples = np.concatenate(spins), np.concatenate(log_weights)
    return model, {n: fit_linear(lattice, *samples, n) for n in (6, 9)}


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
    rng = np.random.default_rng(16)
    for variable in made.trainable_variables:
        variable.assign(0.3 * rng.normal(size=variable.shape))
    return made


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


class OnAxes(Proposal):
    """A heat bath of two spins that point along one of four axes, in a field."""

    axes = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [0.6, 0, 0.8]])

    @property
    def states(self):
        """All 16 configurations."""
        return np.stack([[a, b] for a in self.axes for b in self.axes])

    def log_weight(self, spins):
        return _linear(-1.0).log_weight(spins) + spins[:, 0] @ [0.36, 0, 0.6]

    def propose(self, rng, spins, log_weight):
        spins = spins.copy()
        for sites in visits(rng, self.order, 2, self.sweeps, len(spins)):
            trials = np.repeat(spins[:, None], 4, axis=1)
            trials[np.arange(len(spins)), :, sites] = self.axes
            weights = np.exp(self.log_weight(trials.reshape(-1, 2, 3)).reshape(-1, 4))
            shares = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
            drawn = (rng.random((len(spins), 1)) > shares[:, :3]).sum(axis=1)
            spins[np.arange(len(spins)), sites] = self.axes[drawn]
        return spins, self.log_weight(spins)


class Unguarded(OnAxes):
    """Says that it is reversible, whatever its order."""

    reversible = True


@pytest.mark.parametrize("order", ["random", "coin", "sequential"])
def test_sweeps_in_a_fixed_order_sample_something_else(order):
    proposal = Unguarded(1, order)
    model = DoubleExchange(dimer(), beta=5.0, J=2.0)
    start = proposal.states[np.random.default_rng(20).integers(16, size=20_000)]
    chain = SelfLearning(model, proposal, 20_000, 21, start)
    run(chain, 0, 40)
    exact = model.log_weight(proposal.states)
    expected = np.exp(exact - exact.max())
    expected *= len(start) / expected.sum()
    alike = np.abs(chain.spins[:, None] - proposal.states).max(axis=(2, 3)) < 1e-9
    assert alike.sum() == len(start)
    p = stats.chisquare(alike.sum(axis=0), expected).pvalue
    # Of the right distribution p is below 1e-4 once in 10,000 seeds.
    assert p < 1e-12 if order == "sequential" else p > 1e-4


ORDERS = {
    "random": lambda one, two: np.linalg.matrix_power((one + two) / 2, 2),
    "coin": lambda one, two: (one @ two + two @ one) / 2,
    "sequential": lambda one, two: one @ two,
}


@pytest.mark.parametrize("order", ORDERS)
def test_only_reversible_orders_lead_to_the_exact_distribution(order):
    """All 16 states of two spins that point along one of four axes."""
    axes = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [0.6, 0, 0.8]])
    states = np.stack([[axes[a], axes[b]] for a in range(4) for b in range(4)])
    exact = DoubleExchange(dimer(), beta=10.0, J=2.0).log_weight(states)
    # Its own field as well, or both orders would be the same by symmetry.
    effective = _linear(1.2).log_weight(states) + states[:, 0] @ [0.5, 0, 0.9]
    weights = np.exp(effective).reshape(4, 4)
    chance = weights / weights.sum(axis=0), weights / weights.sum(axis=1)[:, None]
    one, two = np.zeros((2, 16, 16))
    for a, b, other in np.ndindex(4, 4, 4):
        one[4 * a + b, 4 * other + b] = chance[0][other, b]
        two[4 * a + b, 4 * a + other] = chance[1][a, other]
    proposed = ORDERS[order](one, two)
    np.testing.assert_allclose(np.exp(effective) @ proposed, np.exp(effective))
    delta = exact - effective
    moves = proposed * np.minimum(1, np.exp(delta[None] - delta[:, None]))
    np.fill_diagonal(moves, 0)
    np.fill_diagonal(moves, 1 - moves.sum(axis=1))
    pi = np.exp(exact - exact.max())
    pi /= pi.sum()
    flow = pi[:, None] * moves
    imbalance = max(np.abs(flow - flow.T).max(), np.abs(pi @ moves - pi).max())
    assert imbalance > 1e-4 if order == "sequential" else imbalance < 1e-15


def test_sites_are_visited_in_the_order_that_was_asked_for():
    rng = np.random.default_rng(17)
    there = [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(visits(rng, "sequential", 3, 2, 4).T, [there] * 4)
    coins = visits(rng, "coin", 3, 2, 1000).T
    forward = (coins == there).all(axis=1)
    assert (forward | (coins == there[::-1]).all(axis=1)).all()
    # 500 within 4 standard deviations of a coin.
    assert abs(forward.sum() - 500) < FAR * np.sqrt(250)
    drawn = visits(rng, "random", 3, 1000, 2)
    assert drawn.shape == (3000, 2)
    assert stats.chisquare(np.bincount(drawn.ravel())).pvalue > 1e-4


def test_an_order_that_is_not_reversible_is_refused():
    proposal = HeatBath(_linear(0.1), order="sequential")
    with pytest.raises(ValueError, match=r"not reversible.*order='random'"):
        SelfLearning(DoubleExchange(dimer(), 1.0), proposal, 2, seed=0)


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
        (lambda model: HeatBath(_linear(1.0), sweeps=0), "one sweep or more"),
        (lambda model: HeatBath(_linear(1.0), order="any"), "one of 'random', 'coin'"),
    ],
)
def test_what_cannot_be_run_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(DoubleExchange(dimer(), 1.0))
