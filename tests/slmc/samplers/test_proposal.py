"""Site orders: the exact test needs reversible proposals.

The sequential order is the negative control: a sweep in a fixed order is not
reversible, so the exact test has to lead to a wrong distribution.
"""

import numpy as np
import pytest
from scipy import stats

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.samplers.chain import run
from keras_wm.slmc.samplers.proposal import Proposal, site_sequence
from keras_wm.slmc.samplers.self_learning import SelfLearning
from tests.slmc.chains import FALSE_ALARM, MAX_DEVIATION, one_bond
from tests.slmc.closed_forms import dimer

# Two spins that point along one of four axes have 16 configurations.
AXES = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [0.6, 0, 0.8]])
STATES = np.stack([[first, second] for first in AXES for second in AXES])


def sites_of(rng, order, sites, sweeps, chains):
    if order == "sequential":
        return np.tile(np.arange(sites), (chains, sweeps)).T
    return site_sequence(rng, order, sites, sweeps, chains)


class OnAxes(Proposal):
    """Heat bath of two spins on four axes, in a field."""

    def __init__(self, order):
        super().__init__(1, "random")
        self.order = order

    def log_weight(self, spins):
        return one_bond(-1.0).log_weight(spins) + spins[:, 0] @ [0.36, 0, 0.6]

    def propose(self, rng, spins, log_weight):
        spins = spins.copy()
        rows = np.arange(len(spins))
        for sites in sites_of(rng, self.order, 2, self.sweeps, len(spins)):
            trials = np.repeat(spins[:, None], 4, axis=1)
            trials[rows, :, sites] = AXES
            weights = np.exp(self.log_weight(trials.reshape(-1, 2, 3)).reshape(-1, 4))
            shares = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
            drawn = (rng.random((len(spins), 1)) > shares[:, :3]).sum(axis=1)
            spins[rows, sites] = AXES[drawn]
        return spins, self.log_weight(spins)


@pytest.mark.parametrize("order", ["random", "coin", "sequential"])
def test_only_reversible_orders_sample_the_exact_distribution(order):
    """Chi-square test; a false alarm for one seed in 10,000."""
    model = DoubleExchange(dimer(), beta=5.0, J=2.0)
    start = STATES[np.random.default_rng(20).integers(16, size=20_000)]
    chain = SelfLearning(model, OnAxes(order), 20_000, 21, start)
    # The slowest mode of the correct chains decays by a factor 0.81 per step.
    run(chain, 0, 20)
    exact = model.log_weight(STATES)
    expected = np.exp(exact - exact.max())
    expected *= len(start) / expected.sum()
    equal = np.abs(chain.spins[:, None] - STATES).max(axis=(2, 3)) < 1e-9
    assert equal.sum() == len(start)
    p = stats.chisquare(equal.sum(axis=0), expected).pvalue
    assert p < 1e-12 if order == "sequential" else p > FALSE_ALARM


# Transition matrices of a sweep from those of single-site updates.
SWEEPS = {
    "random": lambda first, second: np.linalg.matrix_power((first + second) / 2, 2),
    "coin": lambda first, second: (first @ second + second @ first) / 2,
    "sequential": lambda first, second: first @ second,
}


@pytest.mark.parametrize("order", SWEEPS)
def test_only_reversible_orders_are_in_detailed_balance(order):
    """All 16 states of the dimer, without random numbers."""
    exact = DoubleExchange(dimer(), beta=10.0, J=2.0).log_weight(STATES)
    # Without a field on one site, both orders would be equal by symmetry.
    effective = one_bond(1.2).log_weight(STATES) + STATES[:, 0] @ [0.5, 0, 0.9]
    weights = np.exp(effective).reshape(4, 4)
    # Conditional distributions of the first and the second spin.
    heat_baths = weights / weights.sum(axis=0), weights / weights.sum(axis=1)[:, None]
    first, second = np.zeros((2, 16, 16))
    for a, b, new in np.ndindex(4, 4, 4):
        first[4 * a + b, 4 * new + b] = heat_baths[0][new, b]
        second[4 * a + b, 4 * a + new] = heat_baths[1][a, new]
    proposed = SWEEPS[order](first, second)
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


def test_the_coin_order_runs_forward_or_backward():
    coins = site_sequence(np.random.default_rng(17), "coin", 3, 2, 1000).T
    forward = [0, 1, 2, 0, 1, 2]
    is_forward = (coins == forward).all(axis=1)
    assert (is_forward | (coins == forward[::-1]).all(axis=1)).all()
    # A fair coin: 500 +- 16.
    assert abs(is_forward.sum() - 500) < MAX_DEVIATION * np.sqrt(250)


def test_the_random_order_visits_all_sites_equally_often():
    sites = site_sequence(np.random.default_rng(17), "random", 3, 1000, 2)
    assert sites.shape == (3000, 2)
    assert stats.chisquare(np.bincount(sites.ravel())).pvalue > FALSE_ALARM
