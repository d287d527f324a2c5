"""What tests of chains share."""

import numpy as np

from keras_wm.slmc.lattice import dimer
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.observables import shell_correlations
from keras_wm.slmc.statistics import blocked_error

# Standard errors: by chance once in 16,000 seeds.
FAR = 4.0
CORRELATIONS = {"S.S": lambda one: shell_correlations(one.spins, one.model.lattice)}


def agrees(series, expected, error=0.0):
    """The mean of independent chains and a figure with an error of its own."""
    error = np.hypot(blocked_error(series, 1), error)
    return abs(series.mean() - expected) < FAR * error


def one_bond(coupling):
    """A linear model of two spins."""
    return LinearModel(dimer(), np.array([coupling]))


def with_random_weights(model, scale, seed):
    """The model, with weights that make a difference and fit nothing."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(scale * rng.normal(size=variable.shape))
    return model
