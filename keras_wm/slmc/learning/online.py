"""Learning an effective model while sampling with it, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import nan, sqrt
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.learning.fit import (
    EPOCHS,
    LEARNING_RATE,
    Samples,
    fit,
    grown,
    residuals,
    set_linear,
)
from keras_wm.slmc.models.effective_model import effective_model
from keras_wm.slmc.models.linear_model import LinearModel, fit_linear
from keras_wm.slmc.samplers.chain import Series, run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.proposal import Proposal
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.spins import random_spins
from keras_wm.slmc.statistics import blocked_error
from keras_wm.utils.arrays import Floats
from keras_wm.utils.progress import tracked

# From hot to cold, in shares of beta; at the end twice, since the last fit is by
# samples of the model before it.
_COOLING = (0.125, 0.25, 0.5, 0.75, 1.0, 1.0)
_THERMALISATION = 8
# What a stream of random numbers is for: streams of one study have nothing in common.
_LINEAR, _BLOCKS = 1, 2
HELD_OUT = 0.125


@dataclass(frozen=True)
class Schedule:
    """How much is sampled and trained.

    Attributes:
        chains: How many chains sample.
        proposals: How many proposals of each chain give samples, before the first fit
            and again before each block.
        sweeps: How many sweeps make a proposal.
        epochs: How often a fit sees each sample.
        learning_rate: The largest of a fit.

    Raises:
        ValueError: If one of them is not positive, or there is a single chain.
    """

    chains: int = 256
    proposals: int = 20
    sweeps: int = 8
    epochs: int = EPOCHS
    learning_rate: float = LEARNING_RATE

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(
                    f"Expected a positive number. Received: {name}={value!r}"
                )
        if self.chains < 2:
            raise ValueError(
                "Expected two chains or more, whose difference tells the errors. "
                f"Received: chains={self.chains!r}"
            )


@dataclass(frozen=True, eq=False)
class Stage:
    """What was learned with so many blocks.

    Attributes:
        blocks: L.
        model: The effective model.
        variance: Of ln W - ln W_eff, in configurations that it was not fitted to.
        fitted: To how many it was fitted.
        variance_error: The standard error of the variance.
        acceptance: The share of its own proposals that was accepted, model and chains
            at rest; NaN where it has not sampled.
        acceptance_error: The standard error of the acceptance.
    """

    blocks: int
    model: keras.Model
    variance: float
    fitted: int
    variance_error: float
    acceptance: float = nan
    acceptance_error: float = nan


def learn_linear(
    model: DoubleExchange, shells: int | None, schedule: Schedule, seed: int
) -> tuple[LinearModel, Floats]:
    """A linear effective model, by sampling with it while the electrons cool down.

    Args:
        model: What gives a configuration its weight.
        shells: How many shells are coupled; `None` is all.
        schedule: How much is sampled.
        seed: Of all that is random.

    Returns:
        The model, and the spins of chains that it led to, `(chains, N, 3)`.
    """
    lattice = model.lattice
    rng = np.random.default_rng((seed, _LINEAR))
    spins = random_spins(rng, schedule.chains, lattice.sites)
    linear = LinearModel(lattice, np.zeros(len(lattice.first_shells(shells))))
    for number, share in enumerate(_COOLING):
        warmer = replace(model, beta=share * model.beta)
        proposal = HeatBath(linear, schedule.sweeps)
        stream = (seed, _LINEAR, number)
        chain = SelfLearning(warmer, proposal, schedule.chains, stream, spins)
        samples, _ = _sampled(chain, schedule.proposals)
        linear = fit_linear(lattice, samples.spins, samples.log_weights, shells)
        spins = chain.spins
    return linear, spins


def learn(
    model: DoubleExchange,
    shells: int | None = 6,
    blocks: int = 2,
    schedule: Schedule | None = None,
    seed: int = 0,
    heads: int = 1,
    kernel_regularizer: Any = None,
    progress: bool = False,
) -> Iterator[Stage]:
    r"""Learns an effective model online, and lets it grow block by block.

    A linear model of the same shells comes first. Then, for every block: chains sample
    with the model as it is, all that was diagonalized for them joins the samples,
    whether it was accepted or not, a block is added as the identity, and all of the
    model is fitted to all samples. From scratch, two blocks stick in a poor minimum.

    While a model learns, its chains have no distribution: freeze it, and thermalise
    again, before anything is measured.

    Args:
        model: What gives a configuration its weight.
        shells: How many shells the effective model sees; `None` is all.
        blocks: L, with how many blocks it ends.
        schedule: How much is sampled and trained.
        seed: Of all that is random.
        heads: How many attentions a block adds up.
        kernel_regularizer: Of the weights of each block, such as a
            `WatermarkRegularizer`.
        progress: Whether bars are shown.

    Yields:
        A `Stage` for each number of blocks, from 0 on.

    Raises:
        ValueError: If the lattice has fewer shells.
    """
    schedule = schedule or Schedule()
    linear, spins = learn_linear(model, shells, schedule, seed)
    effective = effective_model(model.lattice, shells)
    set_linear(effective, linear)
    proposal: Proposal = HeatBath(linear, schedule.sweeps)
    samples: Samples | None = None
    fitted = schedule.chains * schedule.proposals
    for number in range(blocks + 1):
        if samples is not None:
            effective = _one_block_more(
                *(effective, samples, schedule, (seed, _BLOCKS, number)),
                *(heads, kernel_regularizer, progress),
            )
            proposal = NeuralMetropolis(effective, schedule.sweeps)
        stream = (seed, _BLOCKS, number)
        chain = SelfLearning(model, proposal, schedule.chains, stream, spins)
        run(chain, 0, _THERMALISATION)
        tried, series = _sampled(chain, schedule.proposals, progress)
        yield Stage(
            number,
            effective,
            float(series["delta"].var()),
            fitted,
            _variance_error(series["delta"].ravel(), tried.chains),
            float(series["acceptance"].mean()),
            blocked_error(series["acceptance"], 1),
        )
        samples = tried if samples is None else samples + tried
        fitted = len(samples)
        spins = chain.spins


def learn_from(
    lattice: Lattice,
    samples: Samples,
    shells: int | None = 6,
    blocks: int = 2,
    schedule: Schedule | None = None,
    seed: int = 0,
    heads: int = 1,
    kernel_regularizer: Any = None,
) -> Iterator[Stage]:
    """Learns an effective model from samples that are there, block by block.

    Args:
        lattice: Where the spins are.
        samples: Configurations and their weights, of the exact distribution or near it.
            An eighth of them is held out.
        shells: How many shells the effective model sees; `None` is all.
        blocks: L, with how many blocks it ends.
        schedule: How much is trained; of sampling nothing counts.
        seed: Of all that is random.
        heads: How many attentions a block adds up.
        kernel_regularizer: Of the weights of each block, such as a
            `WatermarkRegularizer`.

    Yields:
        A `Stage` for each number of blocks, from 0 on.

    Raises:
        ValueError: If the lattice has fewer shells, or there are too few samples.
    """
    schedule = schedule or Schedule()
    held_out, kept = samples.parted(HELD_OUT, seed)
    effective = effective_model(lattice, shells)
    set_linear(effective, fit_linear(lattice, kept.spins, kept.log_weights, shells))
    for number in range(blocks + 1):
        if number:
            effective = _one_block_more(
                *(effective, kept, schedule, (seed, _BLOCKS, number)),
                *(heads, kernel_regularizer),
            )
        missed = residuals(effective, held_out)
        yield Stage(
            number,
            effective,
            float(missed.var()),
            len(kept),
            _variance_error(missed, held_out.chains),
        )


def _one_block_more(
    effective: keras.Model,
    samples: Samples,
    schedule: Schedule,
    stream: tuple[int, ...],
    heads: int,
    kernel_regularizer: Any,
    progress: bool = False,
) -> keras.Model:
    """A model with a block more, all of it fitted to samples."""
    # A seed of its own for the first weights of each block.
    drawn = int(np.random.SeedSequence(stream).generate_state(1)[0])
    model = grown(effective, drawn, heads, kernel_regularizer)
    seed = stream[0]
    fit(model, samples, schedule.epochs, schedule.learning_rate, seed, progress)
    return model


def _sampled(
    chain: SelfLearning, proposals: int, progress: bool = False
) -> tuple[Samples, Series]:
    """All that was diagonalized on the way, and what the chains measured."""
    tried: list[tuple[Floats, Floats]] = []
    rows: dict[str, list[Floats]] = {"acceptance": [], "delta": []}
    for _ in tracked(range(proposals), "sampling", progress):
        chain.advance()
        tried.append((chain.tried, chain.tried_log_weight))
        rows["acceptance"].append(chain.accepted)
        rows["delta"].append(chain.delta)
    spins, log_weights = (np.array(each) for each in zip(*tried, strict=True))
    series = {name: np.array(each) for name, each in rows.items()}
    return Samples.of_chains(spins, log_weights), series


def _variance_error(missed: Floats, chains: NDArray[np.int64]) -> float:
    """The standard error of a variance, by how it differs from chain to chain."""
    squares = (missed - missed.mean()) ** 2
    each = [squares[chains == one].mean() for one in np.unique(chains)]
    return float(np.std(each, ddof=1) / sqrt(len(each)))
