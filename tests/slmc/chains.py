"""Helpers for statistical tests of Markov chains."""

import numpy as np

from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.observables import shell_correlations
from keras_wm.slmc.statistics import blocked_error
from tests.slmc.closed_forms import dimer

# Allowed deviation in standard errors. A correct program exceeds it for one random seed
# in 16,000.
MAX_DEVIATION = 4.0
# Probability that a chi-square test rejects a correct program.
FALSE_ALARM = 1e-4
CORRELATIONS = {
    "S.S": lambda chain: shell_correlations(chain.spins, chain.model.lattice)
}


def agrees(series, expected, error=0.0):
    """Returns whether the mean of independent chains agrees with an expected value.

    Args:
        series: Shape `(steps, chains)`.
        expected: Expected mean.
        error: Standard error of the expected mean.
    """
    error = np.hypot(blocked_error(series, 1), error)
    return abs(series.mean() - expected) < MAX_DEVIATION * error


def one_bond(coupling):
    """Linear model of two spins."""
    return LinearModel(dimer(), np.array([coupling]))


def with_random_weights(model, scale, seed):
    """Gives the model random weights, which matter but are not fitted to anything."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(scale * rng.normal(size=variable.shape))
    return model
