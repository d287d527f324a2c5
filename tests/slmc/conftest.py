"""Fixtures of the tests of self-learning Monte Carlo."""

import numpy as np
import pytest

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.models.linear_model import LinearModel, fit_linear
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.self_learning import SelfLearning


@pytest.fixture(scope="package")
def six():
    """A 6 x 6 lattice at beta = 10 with linear models of 6 and all 9 shells."""
    return with_linear_models(10.0)


@pytest.fixture(scope="package")
def cold_six():
    """The same at beta = 20."""
    return with_linear_models(20.0)


def with_linear_models(beta):
    """A 6 x 6 lattice with linear models of 6 and all 9 shells."""
    lattice = square_lattice(6)
    model = DoubleExchange(lattice, beta)
    # About what is known for beta = 10; K is beta times what hardly changes.
    couplings = np.array([-0.09, 0.12, 0.02, -0.02, 0.05, -0.01, 0.03, -0.01, 0.27])
    linear = LinearModel(lattice, beta / 10 * couplings)
    guess = SelfLearning(model, HeatBath(linear, 5), 200, 8)
    spins, log_weights = [], []
    for step in range(24):
        guess.advance()
        if step >= 4:
            spins.append(guess.spins)
            log_weights.append(guess.electrons.log_weight)
    samples = np.concatenate(spins), np.concatenate(log_weights)
    return model, {n: fit_linear(lattice, *samples, n) for n in (6, 9)}
