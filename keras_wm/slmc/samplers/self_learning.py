"""Self-learning Monte Carlo: proposals of an effective model with an exact test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.samplers.proposal import Proposal
from keras_wm.slmc.samplers.sampler import Sampler, Seed, State
from keras_wm.utils.arrays import Floats


class SelfLearning(Sampler):
    r"""Many local updates of a cheap effective model, followed by one exact test.

    With \(\delta = \ln W - \ln W_\mathrm{eff}\), a proposal S' that is reversible with
    respect to W_eff is accepted with probability

    \[ \min\left(1, \frac{W(S') W_\mathrm{eff}(S)}{W(S) W_\mathrm{eff}(S')}\right)
       = \min(1, e^{\delta' - \delta}). \]

    The chain then samples W exactly, whatever the effective model is; the effective
    model determines the acceptance rate only (Liu et al. 2017, arXiv:1610.03137, and
    arXiv:1611.09364 for electrons). One step of a chain is one proposal, with one
    diagonalisation.

    Args:
        model: Exact model.
        proposal: Proposal, reversible with respect to its effective model.
        chains: Number of chains.
        seed: Random seed.
        spins: First configurations, shape `(chains, N, 3)`. Random spins by default.

    Attributes:
        proposal: Proposal.
        effective: \(\ln W_\mathrm{eff}\) of the current configurations, `(chains,)`.
        tried: Configurations that were proposed last, shape `(chains, N, 3)`.
        tried_log_weight: Their exact \(\ln W\), accepted or not, shape `(chains,)`.
    """

    def __init__(
        self,
        model: DoubleExchange,
        proposal: Proposal,
        chains: int,
        seed: Seed,
        spins: ArrayLike | None = None,
    ) -> None:
        super().__init__(model, chains, seed, spins)
        self.proposal = proposal
        self.effective = proposal.log_weight(self.spins)
        self.tried, self.tried_log_weight = self.spins, self.electrons.log_weight

    @property
    def delta(self) -> Floats:
        r"""\(\delta = \ln W - \ln W_\mathrm{eff}\) of the current configurations."""
        return self.electrons.log_weight - self.effective

    def advance(self, thermalising: bool = False) -> None:
        trial, effective = self.proposal.propose(self.rng, self.spins, self.effective)
        electrons = self.model.electrons(trial)
        self.tried, self.tried_log_weight = trial, electrons.log_weight
        log_ratio = self.tried_log_weight - effective - self.delta
        accepted = self._test(trial, electrons, log_ratio)
        self.effective = np.where(accepted, effective, self.effective)
        self.accepted = accepted.astype(np.float64)
        if thermalising:
            self.proposal.adapt()

    def describe(self) -> dict[str, Any]:
        own = {"sampler": "self-learning"}
        return super().describe() | own | self.proposal.describe()

    def state(self) -> State:
        return super().state() | {"effective": self.effective} | self.proposal.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().restore(state)
        self.effective = state["effective"].copy()
        self.proposal.restore(state)
        self.tried, self.tried_log_weight = self.spins, self.electrons.log_weight
