"""The heat bath of linear models agrees with closed forms.

Statistical tests allow 4 standard errors: a false alarm for one seed in 16,000 each.
"""

import numpy as np

from keras_wm.slmc.models.linear_model import shell_sums
from keras_wm.slmc.samplers.heat_bath import HeatBath, sample_in_field
from keras_wm.slmc.spins import random_spins
from tests.slmc.chains import MAX_DEVIATION, one_bond
from tests.slmc.closed_forms import dimer


def test_a_spin_in_a_field_has_langevins_mean():
    rng = np.random.default_rng(2)
    for strength in (0.0, 1e-12, 0.5, 30.0):
        fields = strength * np.array([0.6, 0.0, -0.8])
        spins = sample_in_field(rng, np.tile(fields, (40_000, 1)))
        np.testing.assert_allclose(np.linalg.norm(spins, axis=1), 1, rtol=1e-12)
        parallel = spins @ [0.6, 0.0, -0.8]
        expected = 1 / np.tanh(strength) - 1 / strength if strength > 1e-6 else 0.0
        assert abs(parallel.mean() - expected) < MAX_DEVIATION * parallel.std() / 200
        across = spins @ [0.8, 0.0, 0.6]
        assert abs(across.mean()) < MAX_DEVIATION * across.std() / 200
        assert abs((across**2 - spins[:, 1] ** 2).mean()) < MAX_DEVIATION / 200


def test_sampling_one_bond_gives_the_derivative_of_its_free_energy():
    """The mean of S1 . S2 is coth K - 1 / K."""
    rng = np.random.default_rng(3)
    proposal = HeatBath(one_bond(1.5), sweeps=20)
    spins = random_spins(rng, 20_000, 2)
    spins, log_weight = proposal.propose(rng, spins, proposal.log_weight(spins))
    products = shell_sums(spins, dimer())[:, 0]
    expected = 1 / np.tanh(1.5) - 1 / 1.5
    error = products.std() / np.sqrt(20_000)
    assert abs(products.mean() - expected) < MAX_DEVIATION * error
    np.testing.assert_allclose(log_weight, 1.5 * products)
