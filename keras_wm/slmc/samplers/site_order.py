r"""In which order local updates go through a lattice.

What self-learning Monte Carlo accepts by is right for proposals that are *reversible*
under the effective model. Sweeps in a fixed order leave its distribution as it is, but
they are not reversible: followed by the exact test they sample something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

SiteOrder = Literal["random", "coin", "sequential"]
REVERSIBLE: tuple[SiteOrder, ...] = ("random", "coin")


def check_order(order: str) -> None:
    """Refuses an order that is none.

    Raises:
        ValueError: If it is none.
    """
    if order not in get_args(SiteOrder):
        raise ValueError(
            f"Expected one of {', '.join(map(repr, get_args(SiteOrder)))}. "
            f"Received: order={order!r}"
        )


def visits(
    rng: np.random.Generator, order: SiteOrder, sites: int, sweeps: int, chains: int
) -> NDArray[np.int64]:
    """Which site each chain updates, one after another.

    Args:
        rng: The source of randomness.
        order: `"random"`: any site at each time. `"coin"`: from the first site to the
            last in all sweeps, or from the last to the first, as a coin falls for each
            chain. `"sequential"`: from the first to the last, which is not reversible.
        sites: N.
        sweeps: How many times N updates.
        chains: How many chains.

    Returns:
        Shape `(sweeps N, chains)`.
    """
    drawn: dict[str, Callable[[], NDArray[np.int64]]] = {
        "random": lambda: rng.integers(sites, size=(sweeps * sites, chains)),
        "coin": lambda: _there_or_back(rng, sites, sweeps, chains),
        "sequential": lambda: np.tile(np.arange(sites), (chains, sweeps)).T,
    }
    return drawn[order]()


def _there_or_back(
    rng: np.random.Generator, sites: int, sweeps: int, chains: int
) -> NDArray[np.int64]:
    there = np.tile(np.arange(sites), (chains, sweeps)).T
    heads = rng.integers(2, size=chains) == 1
    return np.where(heads, there, there[::-1])
