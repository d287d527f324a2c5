"""Fixtures for the tests of self-learning Monte Carlo."""

import numpy as np
import pytest

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning.samples import Samples
from keras_wm.slmc.models.linear_model import LinearModel, fit_linear
from keras_wm.slmc.samplers.chain import OBSERVABLES, SPINS, run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.self_learning import SelfLearning

# Delta of the proposal of each step, whether it was accepted or not.
PROPOSED = {
    "proposed delta": lambda chain: (
        chain.tried_log_weight - chain.proposal.log_weight(chain.tried)
    )
}


@pytest.fixture(scope="session")
def six():
    """Series of self-learning chains on 6 x 6 sites at beta = 10, by shells."""
    return sampled(10.0)


@pytest.fixture(scope="session")
def cold_six():
    """Series of self-learning chains on 6 x 6 sites at beta = 20, by shells."""
    return sampled(20.0)


def sampled(beta):
    """Samples 6 x 6 sites with fitted linear models of 6 and of all 9 shells."""
    lattice = square_lattice(6)
    model = DoubleExchange(lattice, beta)
    # Fitted at beta = 10. The couplings are roughly proportional to beta.
    couplings = np.array([-0.09, 0.12, 0.02, -0.02, 0.05, -0.01, 0.03, -0.01, 0.27])
    linear = LinearModel(lattice, beta / 10 * couplings)
    chain = SelfLearning(model, HeatBath(linear, 5), 200, seed=8)
    samples = Samples.from_series(run(chain, 9, 4, OBSERVABLES | SPINS))
    series = {}
    for shells, steps in ((9, 25), (6, 16)):
        fitted = fit_linear(lattice, samples.spins, samples.log_weights, shells)
        proposal = HeatBath(fitted, 5)
        chain = SelfLearning(model, proposal, 200, (9, shells), chain.spins)
        series[shells] = run(chain, steps, 5, OBSERVABLES | PROPOSED)
    return series
