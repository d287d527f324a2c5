"""Base class of Markov chains that sample the exact weight W(S)."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.slmc.double_exchange import DoubleExchange, Electrons
from keras_wm.slmc.spins import checked_spins, random_spins
from keras_wm.utils.arrays import Floats

State = dict[str, NDArray[Any]]
# A tuple of numbers gives each part of a study its own random stream.
Seed = int | tuple[int, ...]


class Sampler(ABC):
    r"""Independent Markov chains whose stationary distribution is \(W(S)\).

    Args:
        model: Exact model.
        chains: Number of chains.
        seed: Random seed: an integer or a tuple of integers.
        spins: First configurations, shape `(chains, N, 3)`. Random spins by default.

    Raises:
        ValueError: If `chains` is not positive, or `spins` do not fit.

    Attributes:
        model: Exact model.
        spins: Current configurations, shape `(chains, N, 3)`.
        electrons: Electrons in the current configurations.
        accepted: Acceptance rate of each chain in the last step, shape `(chains,)`.
    """

    def __init__(
        self,
        model: DoubleExchange,
        chains: int,
        seed: Seed,
        spins: ArrayLike | None = None,
    ) -> None:
        if not isinstance(chains, int | np.integer) or chains < 1:
            raise ValueError(
                f"Expected at least one chain. Received: chains={chains!r}"
            )
        self.model = model
        self._seed = np.asarray(seed).tolist()
        self.rng = np.random.default_rng(seed)
        sites = model.lattice.sites
        self.spins = (
            random_spins(self.rng, chains, sites)
            if spins is None
            else checked_spins(spins, sites).copy()
        )
        if self.spins.shape != (chains, sites, 3):
            raise ValueError(
                f"Expected spins of {chains} chains, shape ({chains}, {sites}, 3). "
                f"Received: shape {self.spins.shape}"
            )
        self.electrons = model.electrons(self.spins)
        self.accepted = np.zeros(chains)

    @property
    def chains(self) -> int:
        """Number of chains."""
        return len(self.spins)

    @abstractmethod
    def advance(self, thermalising: bool = False) -> None:
        """Advances every chain by one step.

        Args:
            thermalising: Whether to adapt the step size. Leave it off while measuring:
                a chain with a changing step size has a different distribution.
        """

    def describe(self) -> dict[str, Any]:
        """Returns the settings that a checkpoint has to match."""
        return {"chains": self.chains, "seed": self._seed}

    def state(self) -> State:
        """Returns everything that the next step depends on, as arrays."""
        return {
            "spins": self.spins,
            "levels": self.electrons.levels,
            "accepted": self.accepted,
            "rng": np.array(json.dumps(self.rng.bit_generator.state)),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restores a state that `state` returned."""
        self.spins = state["spins"].copy()
        self.electrons = replace(self.electrons, levels=state["levels"])
        self.accepted = state["accepted"].copy()
        self.rng.bit_generator.state = json.loads(str(state["rng"]))

    def _test(
        self, spins: Floats, electrons: Electrons, log_ratio: Floats
    ) -> NDArray[np.bool_]:
        r"""Moves each chain to its trial with probability \(\min(1, e^r)\).

        Returns whether each chain accepted; \(r\) is `log_ratio`.
        """
        accepted = np.log(self.rng.random(self.chains)) < log_ratio
        self.spins = np.where(accepted[:, None, None], spins, self.spins)
        levels = np.where(accepted[:, None], electrons.levels, self.electrons.levels)
        self.electrons = replace(electrons, levels=levels)
        return accepted
