r"""Undoing changes of a kernel's output filters with the key, without a reference.

If the suspect's filter l of unit norm is moved to position k, the bits of group g add
\(r_g \cdot w_l \, a_{gk}\) to the sum of the scores, with \(r_g = \sum_j s_j x_j\)
over the bits of the group. The order of the filters that maximises the sum is the
solution of a linear assignment problem. If signs can be flipped as well, it is the
solution for the absolute values.

The test of each arrangement by itself is exact, and the best of n arrangements has the
p-value n p (Bonferroni). n is L! for the orders of L filters and 2^L for their signs.
All filters are scaled to unit norm: if scales were chosen too, n would be infinite.
Changes of the input channels are not undone. A kernel behind a layer whose filters were
reordered is therefore not found in this way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import lgamma, log, log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.scheme.kernel_key import KernelKey
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arrays import Floats

# The time of the assignment grows with the cube of the number of filters.
MAX_FILTERS = 2048


@dataclass(frozen=True)
class Arrangement:
    """A kernel whose filters have another order and other signs, and unit norms.

    Attributes:
        kernel: The kernel.
        log10_family: log10 of the number of arrangements that it was chosen from.
        moved: Number of filters at another position.
        flipped: Number of filters with the opposite sign.
    """

    kernel: Floats
    log10_family: float
    moved: int
    flipped: int


def arrangements(kernel: NDArray[Any], key: WatermarkKey) -> Iterator[Arrangement]:
    """Yields the arrangements of a kernel's filters that maximise the sum of scores.

    There is one for each family, see `families`.

    Args:
        kernel: A kernel that can hold the key's message.
        key: The key.

    Yields:
        An `Arrangement` for each family; none if the kernel has more than 2048 filters
        or weights that are not finite.
    """
    from scipy.optimize import linear_sum_assignment

    mark = key.for_shape(kernel.shape)
    size, count = mark.size, mark.count
    if count > MAX_FILTERS or not np.isfinite(kernel).all():
        return
    flat = _unit_filters(kernel.reshape(size, count))
    # gains[l, k]: what filter l adds to the sum of scores at position k.
    gains = flat.T @ _pattern(mark)
    log10_orders, log10_signs = lgamma(count + 1) / log(10), count * log10(2)
    unchanged = np.arange(count)
    for is_reordered, may_flip in families(key):
        gain = np.abs(gains) if may_flip else gains
        positions = linear_sum_assignment(-gain)[1] if is_reordered else unchanged
        flipped = (gains[unchanged, positions] < 0) & may_flip
        arranged = np.empty_like(flat)
        arranged[:, positions] = flat * np.where(flipped, -1.0, 1.0)
        yield Arrangement(
            arranged.reshape(kernel.shape),
            is_reordered * log10_orders + may_flip * log10_signs,
            int(np.sum(positions != unchanged)),
            int(np.sum(flipped)),
        )


def families(key: WatermarkKey) -> list[tuple[bool, bool]]:
    """Returns the families of arrangements: whether orders, and signs, are changed.

    The mean filter does not depend on the order, so a key that uses it has only those
    without another order.
    """
    orders = (False,) if key.filters == "mean" else (False, True)
    return list(product(orders, (False, True)))


def _unit_filters(flat: NDArray[Any]) -> Floats:
    """Returns the filters scaled to norm 1; filters of zeros stay zeros."""
    values = flat.astype(np.float64)
    values /= np.abs(values).max() or 1.0
    norms = np.linalg.norm(values, axis=0)
    units: Floats = values / np.where(norms > 0, norms, 1.0)
    return units


def _pattern(mark: KernelKey) -> Floats:
    """Returns the sum of all s_j A x_j a_j, shape `(M, L)`: the mark's direction."""
    if not mark.in_blocks:
        pattern: Floats = _group_rows(mark).T @ mark.filter_weights
    else:
        pattern = np.zeros((mark.size, mark.count))
        blocks = mark.blocks(pattern)
        for first, rows in mark.row_blocks():
            bits = slice(first, first + len(rows))
            blocks[bits] = rows * mark.signs[bits, None]
    return mark.anchor.applied(pattern) if mark.anchor else pattern


def _group_rows(mark: KernelKey) -> Floats:
    """Returns r, the sum of s_j x_j over the bits of each group, shape `(G, M)`."""
    sums = np.zeros((mark.groups, mark.size))
    # Divided by the spread, all scores have the standard deviation 1.
    factors = mark.signs / mark.spread
    for first, rows in mark.row_blocks():
        signed = rows * factors[first : first + len(rows), None]
        for group in range(min(mark.groups, len(rows))):
            sums[group] += signed[group :: mark.groups].sum(axis=0)
    return sums
