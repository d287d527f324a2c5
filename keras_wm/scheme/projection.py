r"""What a key reads from a kernel: the projection X and the filter weights a.

A kernel \(W\) of shape \((M, L)\), filters last, is read bit by bit as
\(y_j = x_j \cdot u_j\) with \(u_j = W a_j\). The papers (Uchida et al. 2017,
section 3; Nagai et al. 2018, section 3) take the mean filter,
\(a_j = 1/L\); keyed filters take signs from the secret instead.
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

# As many as there are bits, usually: shared, they would part the singular values.
KEYED_GROUPS = 64

# So many doubles at a time stay in a processor's cache.
_CACHED = 2**14


def message_bits(secret: Secret, owner: str, bits: int) -> NDArray[np.uint8]:
    """The message b: `bits` fair coin flips that only this owner and secret give.

    Returns:
        Array of 0 and 1, shape `(bits,)`.
    """
    return _bits(secret.expand(-(-bits // 8), "message", owner, bits), bits)


def projection_rows(
    secret: Secret, projection: Projection, bits: int, size: int, first: int, last: int
) -> Floats:
    """Rows of the projection X for kernels of `size` weights a filter.

    Args:
        secret: What X is derived from.
        projection: `"random"`: i.i.d. standard normal. `"direct"`: one 1 a
            row, columns distinct. `"diff"`: one 1 and one -1 a row, columns
            distinct.
        bits: T, the number of rows of X.
        size: M, the number of columns.
        first: The first row that is wanted.
        last: The row behind the last that is wanted.

    Returns:
        Array of shape `(last - first, size)`.
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
    """G, how many weight vectors a new key's bits share."""
    return min(KEYED_GROUPS, bits) if filters == "keyed" else 1


def filter_weights(secret: Secret, filters: Filters, groups: int, count: int) -> Floats:
    """The filter weights a for kernels of `count` filters.

    Args:
        secret: What keyed weights are derived from.
        filters: `"keyed"`: signs, as many of either kind as can be, so that what all
            filters have in common is not read: the papers' mark goes there.
            `"mean"`: all `1 / count`.
        groups: G, the number of weight vectors that the bits share.
        count: L, the number of filters.

    Returns:
        Array of shape `(groups, count)`. Bit j is read through row
        `j % groups`.
    """
    if filters == "mean":
        return mean_filter(count)
    signs = np.full((groups, count), -1.0)
    for group in range(groups):
        order = _shuffled(secret, "filters", count, group)
        signs[group, order[: -(-count // 2)]] = 1.0
    return signs


def mean_filter(count: int) -> Floats:
    """The weights that make the mean filter, shape `(1, count)`."""
    return np.full((1, count), 1.0 / count)


def row_spread(projection: Projection, size: int) -> float:
    """The standard deviation of `x . v` for a v of norm 1 that knows nothing of x."""
    spreads = {"random": 1.0, "direct": sqrt(1 / size), "diff": sqrt(2 / size)}
    return spreads[projection]


def _bits(stream: bytes, count: int) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(stream, np.uint8), count=count)


def _random_rows(secret: Secret, size: int, rows: range) -> Floats:
    matrix = np.empty((len(rows), size))
    step = max(1, _CACHED // size)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        matrix[part] = _normals(secret, size, rows[part])
    return matrix


def _normals(secret: Secret, size: int, rows: range) -> Floats:
    """Normal deviates by the inverse CDF of 53-bit uniforms.

    The first bit of a word is the sign and the next 52 give a uniform in
    (0, 1/2) that a double holds exactly, so no entry can be infinite.
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
    """So many places in an order that the secret chooses: sorted by 64-bit words."""
    words = np.frombuffer(secret.expand(8 * size, label, size, *parameters), ">u8")
    return np.argsort(words, kind="stable")
