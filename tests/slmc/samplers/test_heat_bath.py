"""The heat bath of linear models, against closed forms.

Statistical tests fail beyond 4 standard errors: once in 16,000 seeds each.
"""

import numpy as np

from keras_wm.slmc.lattice import dimer
from keras_wm.slmc.models.linear_model import shell_sums
from keras_wm.slmc.samplers.heat_bath import HeatBath, drawn_in_field
from keras_wm.slmc.spins import random_spins
from tests.slmc.chains import FAR, one_bond


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
    proposal = HeatBath(one_bond(1.5), sweeps=20)
    spins = random_spins(rng, 20_000, 2)
    spins, log_weight = proposal.propose(rng, spins, proposal.log_weight(spins))
    sums = shell_sums(spins, dimer())[:, 0]
    assert abs(sums.mean() - (1 / np.tanh(1.5) - 1 / 1.5)) < FAR * sums.std() / 141
    np.testing.assert_allclose(log_weight, 1.5 * sums)
