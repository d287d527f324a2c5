r"""Observables of the spins: unit vectors on a lattice, shape `(..., N, 3)`.

All are intensive. Independent random spins give 1 / N for both squared magnetisations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.spins import checked_spins
from keras_wm.utils.arrays import Floats


def squared_magnetisation(spins: ArrayLike, lattice: Lattice) -> Floats:
    r"""Computes \(m^2 = |\frac{1}{N} \sum_i S_i|^2\), shape `(...)`."""
    return _squared_mean(checked_spins(spins, lattice.sites))


def squared_staggered_magnetisation(spins: ArrayLike, lattice: Lattice) -> Floats:
    r"""Computes \(m_s^2 = |\frac{1}{N} \sum_i (-1)^{x_i + y_i} S_i|^2\), shape `(...)`.

    This is the order parameter at half filling, mu = 0.
    """
    array = checked_spins(spins, lattice.sites)
    return _squared_mean(lattice.sublattice_signs[:, None] * array)


def shell_correlations(spins: ArrayLike, lattice: Lattice) -> Floats:
    r"""Computes the mean of \(S_i \cdot S_j\) over the pairs of each shell.

    Returns:
        Shape `(..., shells)`, by increasing distance.
    """
    array = checked_spins(spins, lattice.sites)
    products = array @ np.swapaxes(array, -1, -2)
    pairs = np.stack([shell.pairs / shell.pairs.sum() for shell in lattice.shells])
    means: Floats = np.einsum("...ij,nij->...n", products, pairs)
    return means


def _squared_mean(vectors: Floats) -> Floats:
    squares: Floats = np.square(vectors.mean(axis=-2)).sum(axis=-1)
    return squares
