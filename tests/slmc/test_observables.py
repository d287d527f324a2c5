"""Observables, against sums over pairs."""

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


def test_the_structure_factor_is_the_transform_of_correlations():
    found = observables.structure_factor(SPINS, LATTICE)
    apart = LATTICE.positions[:, None] - LATTICE.positions
    for a, b in np.ndindex(4, 6):
        phase = np.cos(2 * np.pi * (a * apart[..., 0] / 4 + b * apart[..., 1] / 6))
        expected = (phase * PRODUCTS).sum(axis=(1, 2)) / 24
        np.testing.assert_allclose(found[:, a, b], expected, atol=1e-12)


def test_correlations_of_a_staggered_order_alternate():
    spins = LATTICE.sublattice_signs[:, None] * np.array([0, 0.6, 0.8])
    expected = [(-1) ** (shell.squared_distance % 2) for shell in LATTICE.shells]
    np.testing.assert_allclose(
        observables.shell_correlations(spins, LATTICE), expected, atol=1e-15
    )


def test_correlations_are_means_over_the_pairs_of_a_shell():
    found = observables.shell_correlations(SPINS, LATTICE)
    assert found.shape == (5, len(LATTICE.shells))
    for number, shell in enumerate(LATTICE.shells):
        np.testing.assert_allclose(
            found[:, number], PRODUCTS[:, shell.pairs].mean(axis=1)
        )


@pytest.mark.parametrize(
    "name", ["squared_magnetisation", "squared_staggered_magnetisation"]
)
def test_independent_spins_have_the_square_of_one_over_n(name):
    spins = random_spins(np.random.default_rng(5), 20_000, 4)
    found = getattr(observables, name)(spins, square_lattice(2))
    error = found.std() / np.sqrt(len(found))
    # Beyond 4 standard errors once in 16,000 seeds.
    assert abs(found.mean() - 1 / 4) < 4 * error
