"""Classical spins: one unit vector per site, for any number of chains."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arrays import Floats

# Allowed deviation of a squared length from 1: rounding in single precision and over
# long chains.
_TOLERANCE = 1e-5


def random_spins(rng: np.random.Generator, chains: int, sites: int) -> Floats:
    """Draws independent spins that are uniform on the sphere.

    Args:
        rng: Random number generator.
        chains: Number of configurations.
        sites: Number of sites N.

    Returns:
        Array of shape `(chains, N, 3)`.
    """
    return unit(rng.normal(size=(chains, sites, 3)))


def unit(vectors: Floats) -> Floats:
    """Normalises vectors to length 1 along the last axis."""
    normalised: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return normalised


def checked_spins(spins: ArrayLike, sites: int) -> Floats:
    """Returns spins as an array after checking their shape and lengths.

    Args:
        spins: Unit vectors, shape `(..., N, 3)`.
        sites: Number of sites N.

    Raises:
        ValueError: If the shape is different, or a vector does not have length 1.
    """
    array = np.asarray(spins, np.float64)
    if array.ndim < 2 or array.shape[-2:] != (sites, 3):
        raise ValueError(
            f"Expected spins of shape (..., {sites}, 3), one vector per site. "
            f"Received: an array of shape {array.shape}"
        )
    squares = np.square(array).sum(axis=-1)
    # Not `any(abs(...) > ...)`, which NaN would pass.
    if not np.all(np.abs(squares - 1) <= _TOLERANCE):
        raise ValueError(
            "Expected spins that are unit vectors. Received: lengths from "
            f"{np.sqrt(squares.min()):.6g} to {np.sqrt(squares.max()):.6g}. Divide "
            "each vector by its norm."
        )
    return array
