"""The linear model is fitted by least squares."""

import numpy as np
import pytest

from keras_wm.slmc.models.linear_model import LinearModel, fit_linear
from keras_wm.slmc.spins import random_spins
from tests.slmc.learning.data import LATTICE, hot_samples


def test_least_squares_recover_the_couplings():
    spins = random_spins(np.random.default_rng(1), 200, 16)
    truth = LinearModel(LATTICE, np.array([-0.3, 0.2, 0.1]), 5.0)
    fitted = fit_linear(LATTICE, spins, truth.log_weight(spins), 3)
    np.testing.assert_allclose(fitted.couplings, truth.couplings, atol=1e-12)
    assert fitted.offset == pytest.approx(5.0)


def test_too_few_samples_for_a_fit_raise_an_error():
    samples = hot_samples(5)
    with pytest.raises(ValueError, match="fit of 5 couplings needs more samples"):
        fit_linear(LATTICE, samples.spins, samples.log_weights)


def test_a_fit_has_the_symmetry_of_the_hypercube():
    """The 4 x 4 torus is the 4-cube, where (1, 1) and (2, 0) are equivalent."""
    samples = hot_samples(4000)
    linear = fit_linear(LATTICE, samples.spins, samples.log_weights)
    assert linear.couplings[1] == pytest.approx(linear.couplings[2], abs=0.005)
    assert abs(linear.couplings[1] - linear.couplings[0]) > 0.03
