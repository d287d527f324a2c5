"""Comparison of the channels of two weights, whatever their scales are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keras_wm.alignment.channel_graph import Part
from keras_wm.utils.arrays import Floats

# float32 is enough for a comparison and twice as fast.
Vectors = NDArray[np.float32]

_MAX_ITERATIONS = 100
_TOLERANCE = 1e-6
# Below this, a sum of squares is too small to be inverted.
_TINY = 1e-290
# Values that are all alike have no spread. Their signs count as if they were this many
# standard deviations from 0.
_MAX_CERTAINTY = 10


@dataclass(frozen=True)
class ChannelComparison:
    """The weights of a channel set in one part of a weight, in both networks.

    Attributes:
        part: Part of the weight's axis.
        other_segments: Segments whose signs the weight has along its other axis.
        reference: Unit vectors of the reference's channels, shape `(channels, size)`.
        suspect: The same of the suspect's channels.
        certainty: Weight of this comparison when the signs of channels are determined,
            shape `(channels,)`.
    """

    part: Part
    other_segments: Sequence[int]
    reference: Vectors
    suspect: Vectors
    certainty: Floats


def other_axis(axis: int) -> int:
    """Returns the other one of the last two axes: -1 for -2, and -2 for -1."""
    return -3 - axis


def unit_vectors(values: Floats) -> Vectors:
    """Returns the weights of each channel as a vector of length 1, or of zeros.

    Args:
        values: Weights of shape `(repeats, channels, ...)`.

    Returns:
        Array of shape `(channels, size)`.
    """
    vectors = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    # Dividing by the largest value first avoids an overflow of squares.
    vectors = _divided(vectors, np.abs(vectors).max(axis=1, keepdims=True))
    vectors = _divided(vectors, np.linalg.norm(vectors, axis=1, keepdims=True))
    return vectors.astype(np.float32)


def sign_certainty(values: Floats) -> Floats:
    """Returns the weight of each channel's values when its sign is determined.

    The cosine of n values is the more certain, the larger n is, and has the weight n.
    A single value has the weight |value| / standard deviation over all channels, which
    is 10 if all are alike. The gamma of a batch normalization is mostly about 1, and
    training hardly ever changes its sign. A bias is about 0 and can change it.

    Args:
        values: Weights of shape `(repeats, channels, ...)`.

    Returns:
        Array of shape `(channels,)`.
    """
    if values.ndim > 2:
        return np.full(values.shape[1], float(values[:, 0].size))
    values = values[0]
    spread = max(
        float(values.std()), float(np.sqrt((values**2).mean())) / _MAX_CERTAINTY
    )
    return np.abs(values) / (spread or 1.0)


def _divided(rows: Floats, lengths: Floats) -> Floats:
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def balancing_factors(array: Floats) -> dict[int, Floats]:
    """Returns factors that give all slices along each of the last two axes one RMS.

    They exist for almost every array and remove every scaling of its channels (Sinkhorn
    and Knopp 1967, applied to the squares, which are added up over all other axes).

    Args:
        array: Array with 2 or more axes.

    Returns:
        The factors of axis -2, shape `(rows, 1)`, and of axis -1, shape `(columns,)`.
    """
    squares = (array**2).reshape(-1, *array.shape[-2:]).sum(axis=0)
    rows, columns = np.ones((len(squares), 1)), np.ones(squares.shape[1])
    for _ in range(_MAX_ITERATIONS):
        before = columns
        rows = _inverse_mean(squares @ columns, squares.shape[1])[:, None]
        columns = _inverse_mean(rows[:, 0] @ squares, squares.shape[0])
        if (np.abs(columns - before) <= _TOLERANCE * columns).all():
            break
    return {-2: np.sqrt(rows), -1: np.sqrt(columns)}


def _inverse_mean(sums: Floats, count: int) -> Floats:
    """Returns count / sums, or 1 for a slice that is zero or almost zero."""
    return np.divide(count, sums, out=np.ones_like(sums), where=sums > _TINY)
