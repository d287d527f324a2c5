r"""The projection X, the filter weights a and the message b of a key.

A kernel \(W\) of shape \((M, L)\), filters last, is read bit by bit as
\(y_j = x_j \cdot u_j\) with \(u_j = W a_j\). The papers (Uchida et al. 2017,
section 3; Nagai et al. 2018, section 3) use the mean filter,
\(a_j = 1/L\). Keyed filters use signs that are derived from the secret instead.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from keras_wm.scheme.normal import quantile
from keras_wm.scheme.secret import Secret
from keras_wm.utils.arrays import Floats

Projection = Literal["random", "direct", "diff"]
Filters = Literal["keyed", "mean"]

# One vector per bit, up to 64. With fewer, such as 16 for 64 bits, the mark lies in so
# few directions of a small kernel that its largest singular values give it away.
KEYED_GROUPS = 64

# Number of doubles that are converted at once: they fit into a processor's cache.
_CHUNK_SIZE = 2**14


def message_bits(secret: Secret, owner: str, bits: int) -> NDArray[np.uint8]:
    """Returns the message b: fair coin flips, derived from the secret and the owner.

    Args:
        secret: Secret of the key.
        owner: Name of the owner.
        bits: T, the length of the message.

    Returns:
        Array of 0 and 1, shape `(T,)`.
    """
    stream = secret.expand(-(-bits // 8), "message", owner, bits)
    return np.unpackbits(np.frombuffer(stream, np.uint8), count=bits)


def projection_rows(
    secret: Secret, projection: Projection, bits: int, size: int, first: int, last: int
) -> Floats:
    """Returns some rows of the projection X for kernels of M weights per filter.

    Args:
        secret: Secret that X is derived from.
        projection: `"random"`: i.i.d. standard normal entries. `"direct"`: one 1 in
            each row, in distinct columns. `"diff"`: one 1 and one -1 in each row, all
            in distinct columns.
        bits: T, the number of rows of X.
        size: M, the number of columns of X.
        first: Number of the first row.
        last: Number of the last row, plus one.

    Returns:
        Array of shape `(last - first, M)`.
    """
    if projection == "random":
        return _random_rows(secret, size, range(first, last))
    matrix = np.zeros((last - first, size))
    columns = _shuffled(secret, projection, size)
    rows = np.arange(last - first)
    if projection == "direct":
        matrix[rows, columns[first:last]] = 1.0
    else:
        matrix[rows, columns[0 : 2 * bits : 2][first:last]] = 1.0
        matrix[rows, columns[1 : 2 * bits : 2][first:last]] = -1.0
    return matrix


def usual_groups(filters: str, bits: int) -> int:
    """Returns G, the number of weight vectors of a new key."""
    return min(KEYED_GROUPS, bits) if filters == "keyed" else 1


def filter_weights(secret: Secret, filters: Filters, groups: int, count: int) -> Floats:
    """Returns the filter weights a for kernels of L filters.

    Args:
        secret: Secret that keyed weights are derived from.
        filters: `"keyed"`: signs, as many +1 as -1 (one more +1 if L is odd). The mean
            filter, which carries the papers' marks, is therefore not read.
            `"mean"`: all weights are `1 / L`.
        groups: G, the number of weight vectors that the bits share.
        count: L, the number of filters.

    Returns:
        Array of shape `(G, L)`. Bit j is read through row `j % G`.
    """
    if filters == "mean":
        return mean_filter(count)
    signs = np.full((groups, count), -1.0)
    for group in range(groups):
        order = _shuffled(secret, "filters", count, group)
        signs[group, order[: -(-count // 2)]] = 1.0
    return signs


def mean_filter(count: int) -> Floats:
    """Returns the weights of the mean filter, shape `(1, L)`."""
    return np.full((1, count), 1.0 / count)


def row_spread(projection: Projection, size: int) -> float:
    """Returns the standard deviation of x . v for a unit vector v independent of x."""
    spreads = {"random": 1.0, "direct": sqrt(1 / size), "diff": sqrt(2 / size)}
    return spreads[projection]


def _random_rows(secret: Secret, size: int, rows: range) -> Floats:
    matrix = np.empty((len(rows), size))
    step = max(1, _CHUNK_SIZE // size)
    for start in range(0, len(rows), step):
        chunk = slice(start, start + step)
        matrix[chunk] = _normals(secret, size, rows[chunk])
    return matrix


def _normals(secret: Secret, size: int, rows: range) -> Floats:
    """Returns normal deviates: the inverse CDF of 53-bit uniforms.

    The first bit of a word is the sign. The next 52 bits give a uniform in (0, 1/2)
    that a double represents exactly and that is never 0, so no entry is infinite.
    """
    stream = b"".join(secret.expand(8 * size, "random", size, row) for row in rows)
    words = np.frombuffer(stream, ">u8").astype(np.uint64).reshape(len(rows), size)
    uniform = (words >> 11 & (2**52 - 1)).astype(np.float64)
    normals = quantile((uniform + 0.5) / 2.0**53)
    np.negative(normals, out=normals, where=words < 2**63)
    return normals


def _shuffled(
    secret: Secret, label: str, size: int, *parameters: int
) -> NDArray[np.intp]:
    """Returns 0 ... size - 1 in a secret order: sorted by 64-bit words of a stream."""
    words = np.frombuffer(secret.expand(8 * size, label, size, *parameters), ">u8")
    return np.argsort(words, kind="stable")
