"""Proposals from an effective model with attention, by local Metropolis updates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_wm.slmc.models.attention import normalized
from keras_wm.slmc.models.effective_model import COMPILED, log_weights
from keras_wm.slmc.samplers.metropolis import adapted, check_step
from keras_wm.slmc.samplers.proposal import Proposal
from keras_wm.slmc.samplers.sampler import State
from keras_wm.slmc.samplers.site_order import SiteOrder, visits
from keras_wm.utils.arrays import Floats


class NeuralMetropolis(Proposal):
    r"""Sweeps in which single spins are turned, and the effective model tells whether.

    Attention sees all pairs of sites, so every trial evaluates the whole model,
    \(O(L N^2)\), for all chains at once. A proposal of N trials a sweep is \(O(N^3)\),
    as the diagonalization behind it.

    Args:
        model: What `effective_model` made.
        sweeps: How many sweeps make a proposal.
        step: How far spins are turned: see `Metropolis`. Adapted while thermalising.
        order: `"random"`, `"coin"`, or `"sequential"`, which is not reversible.
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
        chains, sites, _ = spins.shape
        order = visits(rng, self.order, sites, self.sweeps, chains).T
        dtype = self.model.inputs[0].dtype
        turned, effective, accepted = self._updates.predict_on_batch(
            [
                spins.astype(dtype),
                log_weight.astype(dtype)[:, None],
                order.astype(np.int32),
                (self.step * rng.normal(size=(*order.shape, 3))).astype(dtype),
                np.log(rng.random(order.shape)).astype(dtype),
            ]
        )
        self.accepted = np.asarray(accepted, np.float64)[:, 0] / order.shape[1]
        return np.asarray(turned, np.float64), np.asarray(effective, np.float64)[:, 0]

    def adapt(self) -> None:
        self.step = adapted(self.step, self.accepted)

    def state(self) -> State:
        return {"proposal_step": np.array(self.step)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.step = float(state["proposal_step"])

    def describe(self) -> dict[str, Any]:
        weights = b"".join(np.asarray(one).tobytes() for one in self.model.weights)
        return super().describe() | {
            "step": self._first_step,
            "weights": hashlib.sha256(weights).hexdigest(),
        }


class _LocalUpdates(keras.Model):
    """All trials of a proposal, as one call that the backend compiles."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="local_updates")
        self.model = model
        self.jit_compile = COMPILED

    def call(self, inputs: list[Any]) -> tuple[Any, Any, Any]:
        spins, log_weight, order, turns, log_evens = inputs

        def trial(number: Any, now: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            spins, log_weight, accepted = now
            chosen = ops.one_hot(
                ops.take(order, number, axis=1), spins.shape[1], dtype=spins.dtype
            )[..., None]
            old = ops.sum(chosen * spins, axis=1)
            new = normalized(old + ops.take(turns, number, axis=1))
            candidate = spins + chosen * (new - old)[:, None]
            found = self.model(candidate)
            better = ops.take(log_evens, number, axis=1)[:, None] < found - log_weight
            return (
                ops.where(better[..., None], candidate, spins),
                ops.where(better, found, log_weight),
                accepted + ops.cast(better, accepted.dtype),
            )

        start = (spins, log_weight, ops.zeros_like(log_weight))
        return ops.fori_loop(0, order.shape[1], trial, start)  # type: ignore[no-any-return]
