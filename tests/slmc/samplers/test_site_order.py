"""In which order sites are visited, and what proposals are by that.

Statistical tests fail beyond 4 standard errors: once in 16,000 seeds each.
"""

import numpy as np
import pytest
from scipy import stats

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import dimer
from keras_wm.slmc.samplers.chain import run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.proposal import Proposal
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.samplers.site_order import visits
from tests.slmc.chains import FAR, one_bond


class OnAxes(Proposal):
    """A heat bath of two spins that point along one of four axes, in a field."""

    axes = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [0.6, 0, 0.8]])

    @property
    def states(self):
        """All 16 configurations."""
        return np.stack([[a, b] for a in self.axes for b in self.axes])

    def log_weight(self, spins):
        return one_bond(-1.0).log_weight(spins) + spins[:, 0] @ [0.36, 0, 0.6]

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
    effective = one_bond(1.2).log_weight(states) + states[:, 0] @ [0.5, 0, 0.9]
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
    proposal = HeatBath(one_bond(0.1), order="sequential")
    with pytest.raises(ValueError, match=r"not reversible.*order='random'"):
        SelfLearning(DoubleExchange(dimer(), 1.0), proposal, 2, seed=0)
