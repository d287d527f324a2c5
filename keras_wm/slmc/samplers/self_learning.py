"""Self-learning Monte Carlo: proposals of an effective model, with an exact test."""

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
    r"""Many updates of a cheap effective model, then one exact test.

    With \(\delta = \ln W - \ln W_\mathrm{eff}\) a proposal is accepted with the
    probability \(\min(1, e^{\delta' - \delta})\), so that the chain has the exact
    distribution whatever the effective model is, which only decides how often
    (Liu et al. 2017, arXiv:1610.03137; 1611.09364 for electrons). A step of a chain is
    a proposal, with one diagonalization.

    Args:
        model: What gives a configuration its weight.
        proposal: What proposes, reversibly under its effective model.
        chains: How many chains.
        seed: Of all that is random.
        spins: Where to start, shape `(chains, N, 3)`. Random spins by default.

    Raises:
        ValueError: If the proposals are not reversible.

    Attributes:
        tried: The spins that were proposed last, shape `(chains, N, 3)`.
        tried_log_weight: Their exact ln W, whether they were accepted or not.
    """

    def __init__(
        self,
        model: DoubleExchange,
        proposal: Proposal,
        chains: int,
        seed: Seed,
        spins: ArrayLike | None = None,
    ) -> None:
        if not proposal.reversible:
            raise ValueError(
                "Sweeps in a fixed order are not reversible, and the exact test would "
                f"lead to another distribution. Received: order={proposal.order!r}. "
                "Expected order='random' or order='coin'."
            )
        super().__init__(model, chains, seed, spins)
        self.proposal = proposal
        self.effective = proposal.log_weight(self.spins)
        self.tried, self.tried_log_weight = self.spins, self.electrons.log_weight

    @property
    def delta(self) -> Floats:
        r"""\(\delta = \ln W - \ln W_\mathrm{eff}\) where the chains are."""
        return self.electrons.log_weight - self.effective

    def advance(self, thermalising: bool = False) -> None:
        trial, effective = self.proposal.propose(self.rng, self.spins, self.effective)
        electrons = self.model.electrons(trial)
        self.tried, self.tried_log_weight = trial, electrons.log_weight
        gained = self.tried_log_weight - effective - self.delta
        where = np.log(self.rng.random(self.chains)) < gained
        self._take(trial, electrons, where)
        self.effective = np.where(where, effective, self.effective)
        self.accepted = where.astype(np.float64)
        if thermalising:
            self.proposal.adapt()

    def describe(self) -> dict[str, Any]:
        kind = {"sampler": "self-learning", **self.proposal.describe()}
        return super().describe() | kind

    def state(self) -> State:
        own = {"effective": self.effective, **self.proposal.state()}
        return super().state() | own

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().restore(state)
        self.effective = state["effective"].copy()
        self.proposal.restore(state)
        self.tried, self.tried_log_weight = self.spins, self.electrons.log_weight
