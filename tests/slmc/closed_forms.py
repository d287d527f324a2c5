"""What is known of the double-exchange model without diagonalizing anything."""

import numpy as np


def momenta(across, along):
    """k of all plane waves, two grids."""
    return np.meshgrid(
        2 * np.pi * np.arange(across) / across,
        2 * np.pi * np.arange(along) / along,
        indexing="ij",
    )


def dispersion(kx, ky, t=1.0):
    """The energy of a plane wave."""
    return -2 * t * (np.cos(kx) + np.cos(ky))


def spiral(lattice, qx, qy):
    """Spins that turn in a plane from site to site."""
    angle = lattice.positions @ [qx, qy]
    return np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=-1)


def spiral_levels(across, along, qx, qy, J, t=1.0):
    """A spiral mixes a plane wave with spin down and the one at k + q with spin up."""
    kx, ky = momenta(across, along)
    here, there = dispersion(kx, ky, t), dispersion(kx + qx, ky + qy, t)
    split = np.sqrt(((here - there) / 2) ** 2 + J**2 / 4)
    return np.sort(np.ravel([(here + there) / 2 + s * split for s in (-1, 1)]))


def dimer_weight(cosine, beta, J, t=1.0):
    """W of two spins with an angle between them, at half filling."""
    half = np.cos(np.arccos(cosine) / 2)
    levels = [np.sqrt(t**2 + J**2 / 4 + s * t * J * half) for s in (-1, 1)]
    return np.prod([(2 * np.cosh(beta * level / 2)) ** 2 for level in levels], axis=0)


def dimer_average(beta, J):
    """<S1 . S2>, by Gauss and Legendre."""
    x, w = np.polynomial.legendre.leggauss(200)
    weight = w * dimer_weight(x, beta, J)
    return (weight * x).sum() / weight.sum()
