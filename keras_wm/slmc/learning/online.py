"""Online learning: an effective model is trained on the configurations it proposes.

Attention blocks are added one at a time.
"""

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
from keras_wm.slmc.learning.fit import EPOCHS, LEARNING_RATE, fit, residuals
from keras_wm.slmc.learning.samples import Samples
from keras_wm.slmc.models.effective_model import (
    effective_model,
    set_linear,
    with_extra_block,
)
from keras_wm.slmc.models.linear_model import LinearModel, fit_linear
from keras_wm.slmc.samplers.chain import Observable, run
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.proposal import Proposal
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.spins import random_spins
from keras_wm.slmc.statistics import blocked_error
from keras_wm.utils.arrays import Floats

# Inverse temperatures of the linear model's annealing, as shares of beta. The last one
# is repeated, because each fit uses samples of the model before it.
_ANNEALING = (0.125, 0.25, 0.5, 0.75, 1.0, 1.0)
_THERMALISATION = 8
# Share of the chains that `learn_from` holds out.
HELD_OUT = 0.125
# Numbers in the seeds of independent random streams.
_LINEAR, _BLOCKS = 1, 2
# Every proposal has an exact weight, whether it was accepted or not.
_TRIED: dict[str, Observable] = {
    "spins": lambda chain: chain.tried,
    "log_weight": lambda chain: chain.tried_log_weight,
    "acceptance": lambda chain: chain.accepted,
}


@dataclass(frozen=True)
class Schedule:
    """Amounts of sampling and training.

    Attributes:
        chains: Number of chains.
        proposals: Number of proposals per chain before each fit.
        sweeps: Number of sweeps per proposal.
        epochs: Number of epochs of each fit.
        learning_rate: Largest learning rate of each fit.

    Raises:
        ValueError: If a number is not positive, or there is only one chain.
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
                "Expected at least two chains, because errors are estimated from the "
                f"spread of the chains. Received: chains={self.chains!r}"
            )


@dataclass(frozen=True, eq=False)
class Stage:
    r"""Effective model with a given number of blocks, and its quality.

    Attributes:
        blocks: Number of attention blocks L.
        model: Effective model.
        variance: Variance of \(\delta = \ln W - \ln W_\mathrm{eff}\) in configurations
            that the model was not fitted to.
        fitted: Number of samples that the model was fitted to.
        variance_error: Standard error of the variance.
        acceptance: Acceptance rate of the model's own proposals after thermalisation;
            NaN without sampling.
        acceptance_error: Standard error of the acceptance rate.
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
    """Learns a linear effective model while the temperature is lowered.

    At each temperature, chains sample with the current linear model, and the next one
    is fitted to all of their proposals.

    Args:
        model: Exact model.
        shells: Number of coupled shells; `None` for all.
        schedule: Amount of sampling.
        seed: Random seed.

    Returns:
        The linear model, and the final configurations of the chains, `(chains, N, 3)`.
    """
    lattice = model.lattice
    rng = np.random.default_rng((seed, _LINEAR))
    spins = random_spins(rng, schedule.chains, lattice.sites)
    linear = LinearModel(lattice, np.zeros(len(lattice.first_shells(shells))))
    for number, share in enumerate(_ANNEALING):
        warmer = replace(model, beta=share * model.beta)
        proposal = HeatBath(linear, schedule.sweeps)
        stream = (seed, _LINEAR, number)
        chain = SelfLearning(warmer, proposal, schedule.chains, stream, spins)
        samples = Samples.from_series(run(chain, schedule.proposals, 0, _TRIED))
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
    r"""Learns an effective model online and adds attention blocks one at a time.

    The first stage is a linear model of the same shells. Each further stage

    1. samples with the current model; all proposals, accepted or not, are added to the
       training data, since their exact weights are known,
    2. adds a block that is the identity,
    3. fits all weights to all samples.

    Trained from scratch, two blocks get stuck in a poor minimum.

    The chains of a model that is still learning have no stationary distribution. Freeze
    the model and thermalise again before measuring anything.

    Args:
        model: Exact model.
        shells: Number of shells that the effective model sees; `None` for all.
        blocks: Final number of blocks L.
        schedule: Amounts of sampling and training; `Schedule()` by default.
        seed: Random seed.
        heads: Number of heads per block.
        kernel_regularizer: Regularizer of each block's kernel, such as a
            `WatermarkRegularizer`.
        progress: Whether to show progress bars.

    Yields:
        A `Stage` for each number of blocks from 0 to L.

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
        stream = (seed, _BLOCKS, number)
        if samples is not None:
            effective = with_extra_block(
                effective, _block_seed(stream), heads, kernel_regularizer
            )
            epochs, learning_rate = schedule.epochs, schedule.learning_rate
            fit(effective, samples, epochs, learning_rate, seed, progress)
            proposal = NeuralMetropolis(effective, schedule.sweeps)
        chain = SelfLearning(model, proposal, schedule.chains, stream, spins)
        run(chain, 0, _THERMALISATION)
        series = run(chain, schedule.proposals, 0, _TRIED, progress=progress)
        tried = Samples.from_series(series)
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
    """Learns an effective model from existing samples, block by block.

    Args:
        lattice: Lattice of the spins.
        samples: Configurations and their exact weights, distributed like W or nearly
            so. An eighth of the chains is held out to measure the variance.
        shells: Number of shells that the effective model sees; `None` for all.
        blocks: Final number of blocks L.
        schedule: Epochs and learning rate; its other fields are ignored. `Schedule()`
            by default.
        seed: Random seed.
        heads: Number of heads per block.
        kernel_regularizer: Regularizer of each block's kernel, such as a
            `WatermarkRegularizer`.

    Yields:
        A `Stage` for each number of blocks from 0 to L.

    Raises:
        ValueError: If the lattice has fewer shells, or there are too few samples.
    """
    schedule = schedule or Schedule()
    held_out, kept = samples.split_chains(HELD_OUT, seed)
    effective = effective_model(lattice, shells)
    set_linear(effective, fit_linear(lattice, kept.spins, kept.log_weights, shells))
    for number in range(blocks + 1):
        if number:
            block_seed = _block_seed((seed, _BLOCKS, number))
            effective = with_extra_block(
                effective, block_seed, heads, kernel_regularizer
            )
            fit(effective, kept, schedule.epochs, schedule.learning_rate, seed)
        deltas = residuals(effective, held_out)
        yield Stage(
            number,
            effective,
            float(deltas.var()),
            len(kept),
            _variance_error(deltas, held_out.chains),
        )


def _block_seed(stream: tuple[int, ...]) -> int:
    """Returns the seed of the first weights of a block."""
    return int(np.random.SeedSequence(stream).generate_state(1)[0])


def _variance_error(deltas: Floats, chains: NDArray[np.int64]) -> float:
    """Estimates the standard error of a variance from its spread over the chains."""
    squares = (deltas - deltas.mean()) ** 2
    means = [squares[chains == chain].mean() for chain in np.unique(chains)]
    return float(np.std(means, ddof=1) / sqrt(len(means)))
