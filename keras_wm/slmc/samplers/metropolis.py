"""Plain Metropolis: every trial turns one spin and diagonalizes anew."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.samplers.sampler import Sampler, Seed, State
from keras_wm.slmc.samplers.site_order import visits
from keras_wm.slmc.spins import unit
from keras_wm.utils.arrays import Floats

# Of accepted trials, where local updates of vectors decorrelate fastest.
_AIM = 0.5
_ADAPTATION = 0.3
LARGEST_STEP = 10.0


class Metropolis(Sampler):
    r"""Local updates with exact weights, the reference for everything else.

    A trial turns the spin of a random site to \(S + s \xi\), normalized, of normal
    deviates \(\xi\), which is as likely as the way back. A step of a chain is a sweep
    of N trials, each with a diagonalization: \(O(N^4)\) in all.

    Args:
        model: What gives a configuration its weight.
        chains: How many chains.
        seed: Of all that is random.
        spins: Where to start, shape `(chains, N, 3)`. Random spins by default.
        step: s, adapted while thermalising to accept half of the trials.
    """

    def __init__(
        self,
        model: DoubleExchange,
        chains: int,
        seed: Seed,
        spins: ArrayLike | None = None,
        step: float = 0.7,
    ) -> None:
        super().__init__(model, chains, seed, spins)
        self.step = self._first_step = check_step(step)

    def advance(self, thermalising: bool = False) -> None:
        accepted = np.zeros(self.chains)
        every = np.arange(self.chains)
        for sites in visits(self.rng, "random", self.spins.shape[1], 1, self.chains):
            trial = self.spins.copy()
            trial[every, sites] = turned(self.rng, trial[every, sites], self.step)
            electrons = self.model.electrons(trial)
            gained = electrons.log_weight - self.electrons.log_weight
            where = np.log(self.rng.random(self.chains)) < gained
            self._take(trial, electrons, where)
            accepted += where
        self.accepted = accepted / self.spins.shape[1]
        if thermalising:
            self.step = adapted(self.step, self.accepted)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"sampler": "metropolis", "step": self._first_step}

    def state(self) -> State:
        return super().state() | {"step": np.array(self.step)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().restore(state)
        self.step = float(state["step"])


def turned(rng: np.random.Generator, spins: Floats, step: float) -> Floats:
    """Spins turned at random, as likely as back again."""
    return unit(spins + step * rng.normal(size=spins.shape))


def adapted(step: float, accepted: Floats) -> float:
    """A step that is accepted more nearly half of the time."""
    return min(LARGEST_STEP, step * exp(_ADAPTATION * (float(accepted.mean()) - _AIM)))


def check_step(step: float) -> float:
    """A step size, if it is one.

    Raises:
        ValueError: If it is not positive.
    """
    if not 0 < step <= LARGEST_STEP:
        raise ValueError(
            f"Expected a step above 0, up to {LARGEST_STEP:g}. Received: step={step!r}"
        )
    return float(step)
