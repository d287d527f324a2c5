r"""Base class of proposals, and the order in which their sweeps visit the sites.

The exact acceptance test of self-learning Monte Carlo needs proposals that are
*reversible*, that is, in detailed balance with W_eff:
\(W_\mathrm{eff}(S) P(S \to S') = W_\mathrm{eff}(S') P(S' \to S)\). A sweep through the
sites in a fixed order keeps W_eff stationary but is not reversible. Followed by the
exact test, it samples a wrong distribution. A random order is reversible, and so is a
fixed order in a random direction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_wm.slmc.samplers.sampler import State
from keras_wm.utils.arrays import Floats

SiteOrder = Literal["random", "coin"]


class Proposal(ABC):
    """Sweeps of local updates with an effective model, which make up one proposal.

    Args:
        sweeps: Number of sweeps per proposal.
        order: Order in which a sweep visits the sites: see `site_sequence`.

    Raises:
        ValueError: If the order is unknown, or `sweeps` is not positive.
    """

    def __init__(self, sweeps: int, order: SiteOrder) -> None:
        if order not in get_args(SiteOrder):
            raise ValueError(
                f"Expected one of {', '.join(map(repr, get_args(SiteOrder)))}. "
                f"Received: order={order!r}"
            )
        if not isinstance(sweeps, int | np.integer) or sweeps < 1:
            raise ValueError(
                f"Expected at least one sweep. Received: sweeps={sweeps!r}"
            )
        self.sweeps = int(sweeps)
        self.order = order

    @abstractmethod
    def log_weight(self, spins: Floats) -> Floats:
        r"""Computes \(\ln W_\mathrm{eff}\).

        Args:
            spins: Unit vectors, shape `(chains, N, 3)`.

        Returns:
            Shape `(chains,)`.
        """

    @abstractmethod
    def propose(
        self, rng: np.random.Generator, spins: Floats, log_weight: Floats
    ) -> tuple[Floats, Floats]:
        r"""Proposes new configurations, reversibly with respect to W_eff.

        Args:
            rng: Random number generator.
            spins: Current configurations, shape `(chains, N, 3)`.
            log_weight: Their \(\ln W_\mathrm{eff}\), shape `(chains,)`.

        Returns:
            The proposed configurations and their \(\ln W_\mathrm{eff}\).
        """

    def adapt(self) -> None:  # noqa: B027 (a heat bath has no step size)
        """Adapts the step size, if there is one. Called during thermalisation only."""

    def state(self) -> State:
        """Returns the adapted quantities as arrays."""
        return {}

    def restore(  # noqa: B027 (a heat bath has no step size)
        self, state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Restores a state that `state` returned."""

    def describe(self) -> dict[str, Any]:
        """Returns the settings that a checkpoint has to match."""
        return {
            "proposal": type(self).__name__,
            "sweeps": self.sweeps,
            "order": self.order,
        }


def site_sequence(
    rng: np.random.Generator, order: SiteOrder, sites: int, sweeps: int, chains: int
) -> NDArray[np.int64]:
    """Draws the sites that each chain updates, one after another.

    Args:
        rng: Random number generator.
        order: `"random"`: an independent random site for every update. `"coin"`: all
            sweeps from the first site to the last, or all from the last to the first,
            chosen at random for each chain.
        sites: Number of sites N.
        sweeps: Number of sweeps of N updates.
        chains: Number of chains.

    Returns:
        Site indices, shape `(sweeps N, chains)`.
    """
    if order == "random":
        return rng.integers(sites, size=(sweeps * sites, chains))
    forward = np.tile(np.arange(sites), (chains, sweeps)).T
    heads = rng.integers(2, size=chains) == 1
    return np.where(heads, forward, forward[::-1])
