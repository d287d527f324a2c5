"""Proposals by local Metropolis updates of an effective model with attention."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_wm.slmc.models.attention import normalized
from keras_wm.slmc.models.effective_model import JIT_COMPILE, log_weights
from keras_wm.slmc.samplers.metropolis import adapted_step, check_step
from keras_wm.slmc.samplers.proposal import Proposal, SiteOrder, site_sequence
from keras_wm.slmc.samplers.sampler import State
from keras_wm.utils.arrays import Floats


class NeuralMetropolis(Proposal):
    r"""Sweeps of single-spin trials, accepted by the effective model's weight.

    A trial is that of `Metropolis`, with W_eff in place of W. Attention couples all
    pairs of sites, so every trial evaluates the whole model, \(O(L N^2)\) for L blocks.
    A sweep of N trials costs \(O(N^3)\), like the diagonalisation after the proposal.

    Args:
        model: Effective model made by `effective_model`.
        sweeps: Number of sweeps per proposal.
        step: Step size of a trial, as in `Metropolis`. It adapts during thermalisation.
        order: Order of the sites: see `site_sequence`.

    Attributes:
        accepted: Acceptance rate of each chain's trials in the last proposal.
    """

    def __init__(
        self,
        model: keras.Model,
        sweeps: int = 8,
        step: float = 1.0,
        order: SiteOrder = "random",
    ) -> None:
        super().__init__(sweeps, order)
        self.model = model
        self.step = self._first_step = check_step(step)
        self.accepted = np.zeros(1)
        self._updates = _LocalUpdates(model)

    def log_weight(self, spins: Floats) -> Floats:
        return log_weights(self.model, spins)

    def propose(
        self, rng: np.random.Generator, spins: Floats, log_weight: Floats
    ) -> tuple[Floats, Floats]:
        chains, count, _ = spins.shape
        sites = site_sequence(rng, self.order, count, self.sweeps, chains).T
        dtype = self.model.inputs[0].dtype
        inputs = [
            spins.astype(dtype),
            log_weight.astype(dtype)[:, None],
            sites.astype(np.int32),
            (self.step * rng.normal(size=(*sites.shape, 3))).astype(dtype),
            np.log(rng.random(sites.shape)).astype(dtype),
        ]
        proposed, effective, accepted = (
            np.asarray(output, np.float64)
            for output in self._updates.predict_on_batch(inputs)
        )
        self.accepted = accepted[:, 0] / sites.shape[1]
        return proposed, effective[:, 0]

    def adapt(self) -> None:
        self.step = adapted_step(self.step, self.accepted)

    def state(self) -> State:
        return {"proposal_step": np.array(self.step)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.step = float(state["proposal_step"])

    def describe(self) -> dict[str, Any]:
        weights = b"".join(np.asarray(value).tobytes() for value in self.model.weights)
        return super().describe() | {
            "step": self._first_step,
            "weights": hashlib.sha256(weights).hexdigest(),
        }


class _LocalUpdates(keras.Model):
    """All trials of a proposal in one compiled loop."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="local_updates")
        self.model = model
        self.jit_compile = JIT_COMPILE

    def call(self, inputs: list[Any]) -> tuple[Any, Any, Any]:
        spins, log_weight, sites, noise, log_uniform = inputs

        def trial(number: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            spins, log_weight, count = state
            chosen = ops.one_hot(
                ops.take(sites, number, axis=1), spins.shape[1], dtype=spins.dtype
            )[..., None]
            old = ops.sum(chosen * spins, axis=1)
            new = normalized(old + ops.take(noise, number, axis=1))
            candidate = spins + chosen * (new - old)[:, None]
            effective = self.model(candidate)
            log_ratio = effective - log_weight
            accepted = ops.take(log_uniform, number, axis=1)[:, None] < log_ratio
            return (
                ops.where(accepted[..., None], candidate, spins),
                ops.where(accepted, effective, log_weight),
                count + ops.cast(accepted, count.dtype),
            )

        start = (spins, log_weight, ops.zeros_like(log_weight))
        return ops.fori_loop(0, sites.shape[1], trial, start)  # type: ignore[no-any-return]
