"""Plain Metropolis: single-spin trials with the exact weight."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.samplers.proposal import site_sequence
from keras_wm.slmc.samplers.sampler import Sampler, Seed, State
from keras_wm.slmc.spins import unit
from keras_wm.utils.arrays import Floats

# Local updates of vectors decorrelate fastest near this acceptance rate.
_TARGET_ACCEPTANCE = 0.5
_ADAPTATION_RATE = 0.3
_MAX_STEP = 10.0


class Metropolis(Sampler):
    r"""Single-spin updates with the exact weight, the reference for other samplers.

    A trial replaces the spin S of a random site by \((S + s \xi) / |S + s \xi|\) with
    normal deviates \(\xi\). This proposal is symmetric, so the trial is accepted with
    probability \(\min(1, W(S') / W(S))\). One step of a chain is a sweep of N trials
    with one diagonalisation each, \(O(N^4)\) operations.

    Args:
        model: Exact model.
        chains: Number of chains.
        seed: Random seed.
        spins: First configurations, shape `(chains, N, 3)`. Random spins by default.
        step: Step size s. During thermalisation it adapts to an acceptance rate of one
            half.
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
        chains, count, _ = self.spins.shape
        accepted = np.zeros(chains)
        rows = np.arange(chains)
        for sites in site_sequence(self.rng, "random", count, 1, chains):
            trial = self.spins.copy()
            noise = self.rng.normal(size=(chains, 3))
            trial[rows, sites] = unit(trial[rows, sites] + self.step * noise)
            electrons = self.model.electrons(trial)
            log_ratio = electrons.log_weight - self.electrons.log_weight
            accepted += self._test(trial, electrons, log_ratio)
        self.accepted = accepted / count
        if thermalising:
            self.step = adapted_step(self.step, self.accepted)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"sampler": "metropolis", "step": self._first_step}

    def state(self) -> State:
        return super().state() | {"step": np.array(self.step)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        super().restore(state)
        self.step = float(state["step"])


def adapted_step(step: float, accepted: Floats) -> float:
    """Returns a step size with an acceptance rate nearer to one half."""
    excess = float(accepted.mean()) - _TARGET_ACCEPTANCE
    return min(_MAX_STEP, step * exp(_ADAPTATION_RATE * excess))


def check_step(step: float) -> float:
    """Returns a step size as a float.

    Raises:
        ValueError: If it is not above 0 and at most 10.
    """
    if not 0 < step <= _MAX_STEP:
        raise ValueError(
            f"Expected a step above 0, up to {_MAX_STEP:g}. Received: step={step!r}"
        )
    return float(step)
