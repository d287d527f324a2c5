r"""What is measured of the spins.

All of it at a site, so that it does not grow with the lattice; of independent spins
both squared magnetisations are 1 / N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.spins import checked_spins
from keras_wm.utils.arrays import Floats


def squared_magnetisation(spins: ArrayLike, lattice: Lattice) -> Floats:
    r"""\(m^2 = |\frac{1}{N} \sum_i S_i|^2\), shape `(...)` of spins `(..., N, 3)`."""
    return _squared_mean(checked_spins(spins, lattice.sites))


def squared_staggered_magnetisation(spins: ArrayLike, lattice: Lattice) -> Floats:
    r"""\(|\frac{1}{N} \sum_i (-1)^{x_i + y_i} S_i|^2\), the order parameter at mu = 0.

    Args:
        spins: Unit vectors, shape `(..., N, 3)`.
        lattice: Where they are.

    Returns:
        Shape `(...)`.
    """
    array = checked_spins(spins, lattice.sites)
    return _squared_mean(lattice.sublattice_signs[:, None] * array)


def structure_factor(spins: ArrayLike, lattice: Lattice) -> Floats:
    r"""\(S(q) = \frac{1}{N} |\sum_i S_i e^{-i q \cdot r_i}|^2\) at all momenta.

    Args:
        spins: Unit vectors, shape `(..., N, 3)`.
        lattice: Where they are: a rectangle.

    Returns:
        Shape `(..., L_x, L_y)`; entry (a, b) is at
        \(q = 2 \pi (a / L_x, b / L_y)\). S(0, 0) is N m², S(π, π) is N times the
        squared staggered magnetisation, and the mean over all q is 1.
    """
    array = checked_spins(spins, lattice.sites)
    on_grid = array.reshape(*array.shape[:-2], *lattice.extent, 3)
    waves = np.fft.fft2(on_grid, axes=(-3, -2))
    squares: Floats = np.square(np.abs(waves)).sum(axis=-1)
    return squares / lattice.sites


def shell_correlations(spins: ArrayLike, lattice: Lattice) -> Floats:
    r"""\(\langle S_i \cdot S_j \rangle\), the mean over the pairs of each shell.

    Args:
        spins: Unit vectors, shape `(..., N, 3)`.
        lattice: Where they are.

    Returns:
        Shape `(..., shells)`, from the nearest neighbours outwards.
    """
    array = checked_spins(spins, lattice.sites)
    products = array @ np.swapaxes(array, -1, -2)
    pairs = np.stack([shell.pairs / shell.pairs.sum() for shell in lattice.shells])
    means: Floats = np.einsum("...ij,nij->...n", products, pairs)
    return means


def _squared_mean(vectors: Floats) -> Floats:
    squares: Floats = np.square(vectors.mean(axis=-2)).sum(axis=-1)
    return squares
