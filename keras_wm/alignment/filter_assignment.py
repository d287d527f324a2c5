r"""Undoing what was done to the output filters of a kernel, by what a key holds.

No reference is needed. For suspect filter l of unit norm at position k, the bits of
group g add \(r_g \cdot w_l \, a_{gk}\) to the sum of the scores, with
\(r_g = \sum_j s_j x_j\) over the bits of the group. The order of the filters that makes
it largest solves a linear assignment problem; with signs that may be turned, for the
absolute values.

Each arrangement by itself is an exact test, and the best of n is one of p-value n p
(Bonferroni): n = L! for the orders of L filters, 2^L for their signs. With unit norms
there are no further ones; a scale that were chosen, too, would make them infinitely
many. What was done to the input channels stays: a kernel behind another one whose
filters were reordered is not found so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lgamma, log, log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arrays import Floats

# The assignment takes time that grows with the cube of it.
MOST_FILTERS = 2048


@dataclass(frozen=True)
class Arrangement:
    """Filters of a kernel in another order, with other signs and norms.

    Attributes:
        kernel: The kernel so.
        log10_family: log10 of how many there are that it was chosen from.
        moved: How many filters have another place.
        flipped: How many have the other sign.
    """

    kernel: Floats
    log10_family: float
    moved: int
    flipped: int


def arrangements(kernel: NDArray[Any], key: WatermarkKey) -> Iterator[Arrangement]:
    """The most likely arrangements of a kernel's filters, one of each family.

    All with filters of unit norm: as they are, with signs turned, in another order, and
    both. The mean filter knows no order.

    Args:
        kernel: A kernel that can hold the key's message.
        key: The key.

    Yields:
        An `Arrangement` of each family. None for more than 2048 filters, nor for
        weights that are not finite.
    """
    from scipy.optimize import linear_sum_assignment

    size, count = key.check_shape(kernel.shape)
    if count > MOST_FILTERS or not np.isfinite(kernel).all():
        return
    flat = _units(kernel.reshape(size, count))
    gains = (_toward(key, size) @ flat).T @ key.filter_weights(count)
    orders, signs = lgamma(count + 1) / log(10), count * log10(2)
    in_place = np.arange(count)
    reordered = [] if key.filters == "mean" else [True]
    for is_reordered in (False, *reordered):
        for may_flip in (False, True):
            gain = np.abs(gains) if may_flip else gains
            places = linear_sum_assignment(-gain)[1] if is_reordered else in_place
            turned = (gains[in_place, places] < 0) & may_flip
            arranged = np.empty_like(flat)
            arranged[:, places] = flat * np.where(turned, -1.0, 1.0)
            yield Arrangement(
                arranged.reshape(kernel.shape),
                is_reordered * orders + may_flip * signs,
                int(np.sum(places != in_place)),
                int(np.sum(turned)),
            )


def _units(flat: NDArray[Any]) -> Floats:
    values = flat.astype(np.float64)
    values /= np.abs(values).max() or 1.0
    norms = np.linalg.norm(values, axis=0)
    units: Floats = values / np.where(norms > 0, norms, 1.0)
    return units


def _toward(key: WatermarkKey, size: int) -> Floats:
    """r, what each group of bits adds up to: shape `(G, M)`."""
    toward = np.zeros((key.groups, size))
    # The scores are of the standard deviation 1, whatever the projection.
    weights = key.signs / key.spread(size)
    for first, rows in key.row_blocks(size):
        signed = rows * weights[first : first + len(rows), None]
        for row in range(min(key.groups, len(rows))):
            toward[(first + row) % key.groups] += signed[row :: key.groups].sum(axis=0)
    return toward
