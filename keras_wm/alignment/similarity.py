"""Comparing the channels of two weights, whatever they were multiplied by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.channel_graph import Part
from keras_wm.utils.arrays import Floats

Singles = NDArray[np.float32]
Indices = NDArray[np.intp]

_BALANCINGS = 100
_BALANCED = 1e-6
_TINY = 1e-290
_SUREST = 10


@dataclass(frozen=True)
class Stretch:
    """A stretch of a weight that counts a set of channels, in both networks.

    Attributes:
        part: Which.
        across: The segments whose signs the weight has along its other axis.
        owners: The owner's weights of each channel; see `channel_vectors`.
        theirs: The suspect's.
        matrix: Whether the weight is more than a number for each channel.
        certainty: How much a channel's sign in it says, beside other weights.
    """

    part: Part
    across: Sequence[int]
    owners: Singles
    theirs: Singles
    matrix: bool
    certainty: Floats


def other_axis(axis: int) -> int:
    """Of the last two axes, the one that is not this one."""
    return -3 - axis


def channel_vectors(front: Floats, places: Indices) -> Singles:
    """The weights of each channel, as a vector of length 1, or 0.

    Args:
        front: A weight with the channels' axis in front.
        places: Where they are along it, shape `(repeats, channels)`.

    Returns:
        Array of shape `(channels, size)`. Half the digits do for a comparison, in half
        the time.
    """
    vectors = np.moveaxis(front[places], 1, 0).reshape(places.shape[1], -1)
    # By the largest first, so that no square overflows.
    vectors = _divided(vectors, np.abs(vectors).max(axis=1, keepdims=True))
    vectors = _divided(vectors, np.linalg.norm(vectors, axis=1, keepdims=True))
    return vectors.astype(np.float32)


def sign_certainty(values: Floats) -> Floats:
    """How sure the signs of one number for each channel are.

    Its distance from 0, in standard deviations of them all: a normalization's factor,
    mostly about 1, hardly changes its sign by training; a bias may.

    Args:
        values: The numbers, shape `(channels,)`.

    Returns:
        Array of the same shape; 10 at most for numbers that are all alike.
    """
    spread = max(float(values.std()), float(np.sqrt((values**2).mean())) / _SUREST)
    return np.abs(values) / (spread or 1.0)


def _divided(rows: Floats, lengths: Floats) -> Floats:
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def balancing_factors(array: Floats) -> dict[int, Floats]:
    """What gives all slices of the last two axes the root mean square 1.

    Whatever the slices were multiplied by (Sinkhorn and Knopp 1967).
    """
    squares = (array**2).reshape(-1, *array.shape[-2:]).sum(axis=0)
    rows, columns = np.ones((len(squares), 1)), np.ones(squares.shape[1])
    for _ in range(_BALANCINGS):
        before = columns
        rows = _inverse(squares @ columns, squares.shape[1])[:, None]
        columns = _inverse(rows[:, 0] @ squares, squares.shape[0])
        if np.allclose(before, columns, rtol=_BALANCED, atol=0):
            break
    return {-2: np.sqrt(rows), -1: np.sqrt(columns)}


def _inverse(sums: Floats, count: int) -> Floats:
    """1 over the mean, and 1 for a slice of zeros, or of next to nothing."""
    return np.divide(count, sums, out=np.ones_like(sums), where=sums > _TINY)
