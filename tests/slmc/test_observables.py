"""Observables agree with sums over pairs of sites."""

import numpy as np
import pytest

from keras_wm.slmc import observables
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.spins import random_spins

LATTICE = square_lattice(4, 6)
SPINS = random_spins(np.random.default_rng(4), 5, LATTICE.sites)
PRODUCTS = np.einsum("cia,cja->cij", SPINS, SPINS)


def test_squared_magnetisations_are_sums_over_all_pairs():
    signs = np.array([(-1) ** (x + y) for x in range(4) for y in range(6)])
    np.testing.assert_allclose(
        observables.squared_magnetisation(SPINS, LATTICE), PRODUCTS.mean(axis=(1, 2))
    )
    np.testing.assert_allclose(
        observables.squared_staggered_magnetisation(SPINS, LATTICE),
        (np.outer(signs, signs) * PRODUCTS).mean(axis=(1, 2)),
    )


def structure_factor(spins, lattice):
    """S(q) = |sum_i S_i exp(-i q.r_i)|^2 / N at all momenta, shape `(..., Lx, Ly)`."""
    grid = spins.reshape(*spins.shape[:-2], *lattice.extent, 3)
    waves = np.fft.fft2(grid, axes=(-3, -2))
    return np.square(np.abs(waves)).sum(axis=-1) / lattice.sites


def test_magnetisations_are_the_structure_factor_at_two_momenta():
    factor = structure_factor(SPINS, LATTICE)
    np.testing.assert_allclose(factor.mean(axis=(1, 2)), 1)
    np.testing.assert_allclose(
        factor[:, 0, 0], 24 * observables.squared_magnetisation(SPINS, LATTICE)
    )
    # (pi, pi) of 4 x 6 sites.
    np.testing.assert_allclose(
        factor[:, 2, 3],
        24 * observables.squared_staggered_magnetisation(SPINS, LATTICE),
    )


def test_correlations_of_staggered_spins_alternate():
    spins = LATTICE.sublattice_signs[:, None] * np.array([0, 0.6, 0.8])
    expected = [(-1) ** (shell.squared_distance % 2) for shell in LATTICE.shells]
    np.testing.assert_allclose(
        observables.shell_correlations(spins, LATTICE), expected, atol=1e-15
    )


def test_correlations_are_means_over_the_pairs_of_a_shell():
    correlations = observables.shell_correlations(SPINS, LATTICE)
    assert correlations.shape == (5, len(LATTICE.shells))
    for number, shell in enumerate(LATTICE.shells):
        np.testing.assert_allclose(
            correlations[:, number], PRODUCTS[:, shell.pairs].mean(axis=1)
        )


@pytest.mark.parametrize(
    "name", ["squared_magnetisation", "squared_staggered_magnetisation"]
)
def test_independent_spins_give_one_over_n(name):
    """Within 4 standard errors: a false alarm for one seed in 16,000."""
    spins = random_spins(np.random.default_rng(5), 20_000, 4)
    values = getattr(observables, name)(spins, square_lattice(2))
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - 1 / 4) < 4 * error
