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

from keras_wm.hosts.spin_fermion.attention import (
    EquivariantSelfAttention,
    NearIdentity,
)
from keras_wm.hosts.spin_fermion.effective_model import (
    READOUT,
    attentions,
    log_weights,
)
from keras_wm.hosts.spin_fermion.linear_model import LinearModel
from keras_wm.normal import Floats

EPOCHS = 60
BATCH = 256
LEARNING_RATE = 1e-2
_WEIGHT_DECAY = 1e-4
_WARMING = 0.1
# Of the norm of the gradient, which is large where a new block begins to act.
_CLIP = 10.0


@dataclass(frozen=True, eq=False)
class Samples:
    """Configurations and their exact weights.

    Attributes:
        spins: Shape `(samples, N, 3)`.
        log_weights: ln W, shape `(samples,)`.
    """

    spins: Floats
    log_weights: Floats

    @classmethod
    def none(cls, sites: int) -> Samples:
        """No configurations of a lattice of so many sites."""
        return cls(np.empty((0, sites, 3)), np.empty(0))

    def __len__(self) -> int:
        return len(self.log_weights)

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            np.concatenate([self.spins, other.spins]),
            np.concatenate([self.log_weights, other.log_weights]),
        )

    def parted(self, share: float, seed: int) -> tuple[Samples, Samples]:
        """A share of them and the rest, at random."""
        order = np.random.default_rng(seed).permutation(len(self))
        first, rest = np.split(order, [round(share * len(self))])
        return self._of(first), self._of(rest)

    def _of(self, which: NDArray[np.int64]) -> Samples:
        return Samples(self.spins[which], self.log_weights[which])


def fit(
    model: keras.Model,
    samples: Samples,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
) -> None:
    """Trains an effective model, by AdamW, whose rate warms up and falls as a cosine.

    Args:
        model: What `effective_model` made.
        samples: What it is fitted to.
        epochs: How often each sample is seen.
        learning_rate: The largest.
        seed: Of the order of the samples.
    """
    centre(model, samples)
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
            clipnorm=_CLIP,
        ),
        _variance,
    )
    keras.utils.set_random_seed(seed)
    trained.fit(
        samples.spins,
        samples.log_weights[:, None],
        BATCH,
        epochs,
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
    """An effective model with one block more, which changes next to nothing yet.

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
        kernel_initializer=NearIdentity(seed=seed),
        kernel_regularizer=kernel_regularizer,
        name=f"attention{len(blocks) + 1}",
    )
    inputs = spins = keras.Input(model.input_shape[1:], name="spins")
    for layer in [*map(_twin, blocks), new, _twin(readout)]:
        spins = layer(spins)
    larger = keras.Model(inputs, spins, name=model.name)
    for layer in [*blocks, readout]:
        larger.get_layer(layer.name).set_weights(layer.get_weights())
    return larger


def _twin(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer of the same settings, regularizer included."""
    # Not by the config alone, from which a mark's regularizer comes back inert.
    twin = type(layer).from_config(layer.get_config() | {"kernel_regularizer": None})
    twin.kernel_regularizer = layer.kernel_regularizer
    return twin
