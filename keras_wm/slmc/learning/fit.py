r"""Fitting an effective model to exact weights.

What counts for acceptance is the variance of \(\ln W - \ln W_\mathrm{eff}\). So that is
the loss, and the offset takes the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_wm.slmc.models.attention import AttendingToNothing, EquivariantSelfAttention
from keras_wm.slmc.models.effective_model import (
    COMPILED,
    READOUT,
    attentions,
    chained,
    log_weights,
    twin,
)
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.utils.arrays import Floats
from keras_wm.utils.progress import tracked

EPOCHS = 60
BATCH = 256
LEARNING_RATE = 1e-2
_WEIGHT_DECAY = 1e-4
_WARMING = 0.1
_TRIES = 4
# Of the norm of the gradient, which is large where a new block begins to act.
_CLIP = 10.0


@dataclass(frozen=True, eq=False)
class Samples:
    """Configurations and their exact weights.

    Attributes:
        spins: Shape `(samples, N, 3)`.
        log_weights: ln W, shape `(samples,)`.
        chains: From which chain each comes, shape `(samples,)`. Configurations of one
            chain are alike, or even the same, where a proposal was rejected.
    """

    spins: Floats
    log_weights: Floats
    chains: NDArray[np.int64]

    @classmethod
    def of_chains(cls, spins: Floats, log_weights: Floats) -> Samples:
        """Series of chains: `(steps, chains, N, 3)` and `(steps, chains)`."""
        steps, chains = log_weights.shape
        return cls(
            spins.reshape(-1, *spins.shape[-2:]),
            log_weights.ravel(),
            np.tile(np.arange(chains), steps),
        )

    def __len__(self) -> int:
        return len(self.log_weights)

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            np.concatenate([self.spins, other.spins]),
            np.concatenate([self.log_weights, other.log_weights]),
            np.concatenate([self.chains, other.chains]),
        )

    def parted(self, share: float, seed: int) -> tuple[Samples, Samples]:
        """The samples of a share of the chains, drawn at random, and the rest.

        Raises:
            ValueError: If there are too few chains for that.
        """
        chains = np.random.default_rng(seed).permutation(np.unique(self.chains))
        first = round(share * len(chains))
        if not 0 < first < len(chains):
            raise ValueError(
                f"To hold out {share:g} of the chains, more are needed. Received: "
                f"samples of {len(chains)} chains"
            )
        drawn = np.isin(self.chains, chains[:first])
        return self._of(drawn), self._of(~drawn)

    def _of(self, which: NDArray[np.bool_]) -> Samples:
        return Samples(self.spins[which], self.log_weights[which], self.chains[which])


def fit(
    model: keras.Model,
    samples: Samples,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Trains an effective model, by AdamW, whose rate warms up and falls as a cosine.

    A rate may be too large for many heads or blocks. A fit that leads to a worse model
    than it began with is done again, at a quarter of the rate.

    Args:
        model: What `effective_model` made. If no rate is small enough, it stays what it
            was.
        samples: What it is fitted to.
        epochs: How often each sample is seen.
        learning_rate: The largest.
        seed: Of the order of the samples.
        progress: Whether a bar is shown.
    """
    centre(model, samples)
    first, before = model.get_weights(), _objective(model, samples)
    for number in range(_TRIES):
        rate = learning_rate / 4**number
        _fit_at(model, samples, epochs, rate, seed, progress)
        # A comparison with NaN is false.
        if _objective(model, samples) <= before:
            return
        model.set_weights(first)


def _objective(model: keras.Model, samples: Samples) -> float:
    """What a fit makes small: the variance, and the penalty of a mark."""
    penalties = [float(ops.convert_to_numpy(one)) for one in model.losses]
    return float(residuals(model, samples).var()) + sum(penalties)


def _fit_at(
    model: keras.Model,
    samples: Samples,
    epochs: int,
    learning_rate: float,
    seed: int,
    progress: bool,
) -> None:
    """A fit at one learning rate."""
    steps = epochs * ceil(len(samples) / BATCH)
    # Without, first steps may lead to where no gradient leads out.
    warming = round(_WARMING * steps)
    # A model of the same layers, so that none of this is saved with the other.
    trained = keras.Model(model.inputs, model.outputs)
    trained.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0,
                max(1, steps - warming),
                warmup_target=learning_rate,
                warmup_steps=warming,
            ),
            weight_decay=_WEIGHT_DECAY,
            global_clipnorm=_CLIP,
        ),
        _variance,
        jit_compile=COMPILED,
    )
    rng = np.random.default_rng(seed)
    for _ in tracked(range(epochs), "fitting", progress):
        # Not by Keras, which draws from the state that all of a program shares.
        order = rng.permutation(len(samples))
        trained.fit(
            samples.spins[order],
            samples.log_weights[order, None],
            BATCH,
            shuffle=False,
            verbose=0,
        )
    centre(model, samples)


def _variance(log_weights: Any, found: Any) -> Any:
    """The square of what is missed, less its mean in the batch.

    With the mean in it, all else would wait for the offset to follow at the pace of the
    learning rate.
    """
    missed = log_weights - found
    return ops.square(missed - ops.mean(missed))


def residuals(model: keras.Model, samples: Samples) -> Floats:
    r"""\(\delta = \ln W - \ln W_\mathrm{eff}\) of each sample, shape `(samples,)`."""
    return samples.log_weights - log_weights(model, samples.spins)


def centre(model: keras.Model, samples: Samples) -> None:
    """Lets the offset take the mean of what the model misses."""
    offset = model.get_layer(READOUT).offset
    offset.assign(np.asarray(offset) + residuals(model, samples).mean())


def set_linear(model: keras.Model, linear: LinearModel) -> None:
    """Gives the readout the couplings of a linear model of as many shells."""
    readout = model.get_layer(READOUT)
    readout.kernel.assign(linear.couplings[:, None])
    readout.offset.assign([linear.offset])


def grown(
    model: keras.Model, seed: int = 0, heads: int = 1, kernel_regularizer: Any = None
) -> keras.Model:
    """An effective model with one block more, which changes nothing yet.

    Args:
        model: What `effective_model` made, with any number of blocks.
        seed: Of the new block's first weights.
        heads: How many attentions the new block adds up.
        kernel_regularizer: Of the new block's weights.

    Returns:
        A `keras.Model` with the weights of all that was there.
    """
    blocks, readout = attentions(model), model.get_layer(READOUT)
    new = EquivariantSelfAttention(
        readout.extent,
        readout.squared_distances,
        heads,
        kernel_initializer=AttendingToNothing(seed=seed),
        kernel_regularizer=kernel_regularizer,
        name=f"attention{len(blocks) + 1}",
        dtype=readout.dtype_policy,
    )
    layers = [*map(twin, blocks), new, twin(readout)]
    return chained(model, layers, model.input_shape[1])
