"""Functions of the normal distribution, compared with SciPy's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr, ndtri

from keras_wm.scheme.normal import log_tail, quantile


def test_quantiles_agree_with_scipy(rng):
    # These are all probabilities that the derivation of a key can use.
    p = np.concatenate([rng.random(20000) / 2, 2.0 ** -rng.uniform(1, 54, 20000)])
    edges = [0.5 - 2.0**-54, 0.075, np.exp(-25), 2.0**-54]
    p = np.concatenate([p, edges])
    np.testing.assert_allclose(quantile(p), ndtri(p), rtol=2e-14)


def test_quantiles_have_the_shape_of_the_probabilities(rng):
    p = rng.random((3, 4, 5)) / 2
    np.testing.assert_array_equal(quantile(p).reshape(-1), quantile(p.reshape(-1)))


@settings(deadline=None, derandomize=True)
@given(st.floats(-37, 1e6))
def test_the_log_of_the_tail_agrees_with_scipy(z):
    assert log_tail(z) == pytest.approx(log_ndtr(-z), rel=1e-11)


def test_every_score_has_a_p_value():
    assert log_tail(1e9) == pytest.approx(-5e17)
    assert log_tail(-1e9) == 0
