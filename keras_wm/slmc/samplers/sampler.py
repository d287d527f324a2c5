"""Markov chains of spins with the electrons' exact weights, many side by side."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.slmc.double_exchange import DoubleExchange, Electrons
from keras_wm.slmc.spins import checked_spins, random_spins
from keras_wm.utils.arrays import Floats

State = dict[str, NDArray[Any]]
# Several numbers keep streams apart that belong to one study.
Seed = int | tuple[int, ...]


class Sampler(ABC):
    r"""Chains whose spins come to be distributed by \(W(S)\).

    Args:
        model: What gives a configuration its weight.
        chains: How many chains, each independent of the others.
        seed: Of all that is random: a whole number, or several.
        spins: Where to start, shape `(chains, N, 3)`. Random spins by default.

    Attributes:
        model: What gives a configuration its weight.
        spins: Where the chains are, shape `(chains, N, 3)`.
        electrons: What the electrons do there.
        accepted: The share of the last step's trials that each chain accepted.
    """

    def __init__(
        self,
        model: DoubleExchange,
        chains: int,
        seed: Seed,
        spins: ArrayLike | None = None,
    ) -> None:
        if not isinstance(chains, int | np.integer) or chains < 1:
            raise ValueError(f"Expected one chain or more. Received: chains={chains!r}")
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
        """How many chains there are."""
        return len(self.spins)

    @abstractmethod
    def advance(self, thermalising: bool = False) -> None:
        """Takes every chain one step further.

        Args:
            thermalising: Whether the step size may be adapted. Not while anything is
                measured: a chain that adapts has another distribution.
        """

    def describe(self) -> dict[str, Any]:
        """What tells these chains from others, for a checkpoint."""
        return {"chains": self.chains, "seed": self._seed}

    def state(self) -> State:
        """All that the next step depends on, as arrays."""
        return {
            "spins": self.spins,
            "levels": self.electrons.levels,
            "accepted": self.accepted,
            "rng": np.array(json.dumps(self.rng.bit_generator.state)),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Goes back to a state."""
        self.spins = state["spins"].copy()
        self.electrons = self._of(state["levels"])
        self.accepted = state["accepted"].copy()
        self.rng.bit_generator.state = json.loads(str(state["rng"]))

    def _of(self, levels: Floats) -> Electrons:
        return Electrons(levels, self.model.beta, self.model.mu)

    def _take(
        self, spins: Floats, electrons: Electrons, where: NDArray[np.bool_]
    ) -> None:
        """Moves those chains that accept."""
        self.spins = np.where(where[:, None, None], spins, self.spins)
        self.electrons = self._of(
            np.where(where[:, None], electrons.levels, self.electrons.levels)
        )
