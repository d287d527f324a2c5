"""Pruning: setting weights to zero, which a network bears better than one thinks."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Order = Literal["ascending", "descending", "random"]


def prune(
    kernel: NDArray[Any], share: float, order: Order = "ascending", seed: int = 0
) -> NDArray[Any]:
    """Sets a share of a kernel's weights to zero (Uchida et al. 2017, section 4.4.2).

    Args:
        kernel: The weights, of any shape.
        share: Which share of them, from 0 to 1.
        order: Which of them go first: the smallest by magnitude (`"ascending"`, what
            compression does), the largest, or any.
        seed: Of the random order.

    Returns:
        A copy with `round(share * size)` weights set to zero.

    Raises:
        ValueError: If the share or the order is none of these.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Expected 0 <= share <= 1. Received: share={share!r}")
    if order not in get_args(Order):
        raise ValueError(
            f"Expected one of {', '.join(map(repr, get_args(Order)))}. "
            f"Received: order={order!r}"
        )
    if order == "random":
        ranks = np.random.default_rng(seed).permutation(kernel.size)
    else:
        magnitudes = np.abs(kernel.reshape(-1))
        ranks = np.argsort(
            magnitudes if order == "ascending" else -magnitudes, kind="stable"
        )
    pruned = kernel.copy()
    pruned.reshape(-1)[ranks[: round(share * kernel.size)]] = 0
    return pruned
