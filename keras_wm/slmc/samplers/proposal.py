"""What a global update is proposed by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.slmc.samplers.sampler import State
from keras_wm.slmc.samplers.site_order import REVERSIBLE, SiteOrder, check_order
from keras_wm.utils.arrays import Floats


class Proposal(ABC):
    """Local updates of an effective model, many of which make a proposal.

    Args:
        sweeps: How many sweeps make a proposal.
        order: In which order they visit the sites: see `site_order`.

    Raises:
        ValueError: If there is no such order, or sweeps is not positive.
    """

    def __init__(self, sweeps: int, order: SiteOrder) -> None:
        check_order(order)
        if not isinstance(sweeps, int | np.integer) or sweeps < 1:
            raise ValueError(f"Expected one sweep or more. Received: sweeps={sweeps!r}")
        self.sweeps = int(sweeps)
        self.order = order

    @property
    def reversible(self) -> bool:
        """Whether a proposal is as likely as the way back, by the effective model."""
        return self.order in REVERSIBLE

    @abstractmethod
    def log_weight(self, spins: Floats) -> Floats:
        r"""\(\ln W_\mathrm{eff}\) of spins `(chains, N, 3)`, shape `(chains,)`."""

    @abstractmethod
    def propose(
        self, rng: np.random.Generator, spins: Floats, log_weight: Floats
    ) -> tuple[Floats, Floats]:
        r"""Where to go from there.

        Args:
            rng: The source of randomness.
            spins: Where the chains are, shape `(chains, N, 3)`.
            log_weight: \(\ln W_\mathrm{eff}\) there, shape `(chains,)`.

        Returns:
            The proposed spins and their \(\ln W_\mathrm{eff}\).
        """

    def adapt(self) -> None:  # noqa: B027 (a heat bath has none)
        """Changes the size of local updates, if they have one, while thermalising."""

    def state(self) -> State:
        """What was adapted, as arrays."""
        return {}

    def restore(  # noqa: B027 (a heat bath has none)
        self, state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Goes back to a state."""

    def describe(self) -> dict[str, Any]:
        """What tells it from other proposals, for a checkpoint."""
        return {
            "proposal": type(self).__name__,
            "sweeps": self.sweeps,
            "order": self.order,
        }
