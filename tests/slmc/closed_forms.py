"""Closed forms of the double-exchange model, which need no diagonalisation."""

import numpy as np

from keras_wm.slmc.lattice import Lattice, Shell


def dimer():
    """Two sites with one bond: the smallest lattice, with open boundaries."""
    pair = np.array([[False, True], [True, False]])
    return Lattice(np.array([[0, 0], [1, 0]]), pair.astype(float), (Shell(1, pair),))


def momenta(size_x, size_y):
    """Momenta kx and ky of all plane waves, two grids."""
    return np.meshgrid(
        2 * np.pi * np.arange(size_x) / size_x,
        2 * np.pi * np.arange(size_y) / size_y,
        indexing="ij",
    )


def dispersion(kx, ky, t=1.0):
    """Energy of a plane wave."""
    return -2 * t * (np.cos(kx) + np.cos(ky))


def spiral(lattice, qx, qy):
    """Planar spin spiral with wave vector q."""
    angle = lattice.positions @ [qx, qy]
    return np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1)


def spiral_levels(size_x, size_y, qx, qy, J, t=1.0):
    """Levels of a spiral, which couples spin down at k to spin up at k + q only."""
    kx, ky = momenta(size_x, size_y)
    down, up = dispersion(kx, ky, t), dispersion(kx + qx, ky + qy, t)
    split = np.sqrt(((down - up) / 2) ** 2 + J**2 / 4)
    return np.sort(np.ravel([(down + up) / 2 + sign * split for sign in (-1, 1)]))


def dimer_weight(cosine, beta, J, t=1.0):
    """Weight W of the dimer at half filling, by the cosine between its spins."""
    half = np.cos(np.arccos(cosine) / 2)
    levels = [np.sqrt(t**2 + J**2 / 4 + sign * t * J * half) for sign in (-1, 1)]
    return np.prod([(2 * np.cosh(beta * level / 2)) ** 2 for level in levels], axis=0)


def dimer_average(beta, J):
    """Average of S1 . S2 in the dimer, by Gauss-Legendre quadrature."""
    x, w = np.polynomial.legendre.leggauss(200)
    weight = w * dimer_weight(x, beta, J)
    return (weight * x).sum() / weight.sum()
