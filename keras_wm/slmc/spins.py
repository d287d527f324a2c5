"""Classical spins: unit vectors, one at each site, in as many chains as wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arrays import Floats

# Of the square of a length: what single precision and long chains leave.
_TOLERANCE = 1e-5


def random_spins(rng: np.random.Generator, chains: int, sites: int) -> Floats:
    """Independent spins, evenly distributed over the sphere.

    Args:
        rng: The source of randomness.
        chains: How many configurations.
        sites: N.

    Returns:
        Array of shape `(chains, N, 3)`.
    """
    return unit(rng.normal(size=(chains, sites, 3)))


def unit(vectors: Floats) -> Floats:
    """Vectors of length 1 in the same direction, along the last axis."""
    shorter: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return shorter


def checked_spins(spins: ArrayLike, sites: int) -> Floats:
    """Spins as an array, if they are spins of a lattice.

    Args:
        spins: Unit vectors, shape `(..., N, 3)`.
        sites: N.

    Raises:
        ValueError: If the shape is another, or a vector's length is not 1.
    """
    array = np.asarray(spins, np.float64)
    if array.ndim < 2 or array.shape[-2:] != (sites, 3):
        raise ValueError(
            f"Expected spins of the shape (..., {sites}, 3), a vector for each site. "
            f"Received: an array of the shape {array.shape}"
        )
    squares = np.square(array).sum(axis=-1)
    # Not `any(abs(...) > ...)`, which NaN would pass.
    if not np.all(np.abs(squares - 1) <= _TOLERANCE):
        raise ValueError(
            "Expected spins that are unit vectors. Received: lengths from "
            f"{np.sqrt(squares.min()):.6g} to {np.sqrt(squares.max()):.6g}. Divide "
            "each by its norm."
        )
    return array
