r"""Fits of an effective model to exact weights.

The acceptance rate depends on the variance of
\(\delta = \ln W - \ln W_\mathrm{eff}\), not on its mean. The variance is therefore the
loss, and the model's offset is set to make the mean zero.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wm.slmc.learning.samples import Samples
from keras_wm.slmc.models.effective_model import JIT_COMPILE, READOUT, log_weights
from keras_wm.utils.arrays import Floats
from keras_wm.utils.progress import tracked

EPOCHS = 60
BATCH = 256
LEARNING_RATE = 1e-2
_WEIGHT_DECAY = 1e-4
# Share of the steps in which the learning rate rises from 0.
_WARMUP = 0.1
# Number of learning rates that are tried, each a quarter of the one before.
_ATTEMPTS = 4
# Bound on the gradient's norm, which is large when a new block begins to act.
_CLIP_NORM = 10.0


def fit(
    model: keras.Model,
    samples: Samples,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Trains an effective model with AdamW, linear warm-up and cosine decay.

    A learning rate can be too large for many heads or blocks. If a fit makes the model
    worse, it is repeated from the first weights at a quarter of the rate, at most three
    times. If all attempts fail, the weights stay unchanged except for the offset.

    Args:
        model: Effective model made by `effective_model`.
        samples: Training data.
        epochs: Number of passes over the samples.
        learning_rate: Largest learning rate.
        seed: Random seed of the order of the samples.
        progress: Whether to show a progress bar.
    """
    centre(model, samples)
    weights, objective = model.get_weights(), _objective(model, samples)
    for attempt in range(_ATTEMPTS):
        rate = learning_rate / 4**attempt
        _fit_once(model, samples, epochs, rate, seed, progress)
        # False if the objective is NaN.
        if _objective(model, samples) <= objective:
            return
        model.set_weights(weights)


def _objective(model: keras.Model, samples: Samples) -> float:
    """Computes the variance plus the penalties of regularizers such as a watermark."""
    penalties = [float(ops.convert_to_numpy(penalty)) for penalty in model.losses]
    return float(residuals(model, samples).var()) + sum(penalties)


def _fit_once(
    model: keras.Model,
    samples: Samples,
    epochs: int,
    learning_rate: float,
    seed: int,
    progress: bool,
) -> None:
    """Trains at one learning rate."""
    steps = epochs * ceil(len(samples) / BATCH)
    # Without warm-up, the first steps can reach a region with vanishing gradients.
    warmup = round(_WARMUP * steps)
    # A second model of the same layers, so that `model` stays uncompiled and is saved
    # without an optimizer.
    trained = keras.Model(model.inputs, model.outputs)
    trained.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0,
                max(1, steps - warmup),
                warmup_target=learning_rate,
                warmup_steps=warmup,
            ),
            weight_decay=_WEIGHT_DECAY,
            global_clipnorm=_CLIP_NORM,
        ),
        _variance,
        jit_compile=JIT_COMPILE,
    )
    rng = np.random.default_rng(seed)
    for _ in tracked(range(epochs), "fitting", progress):
        # Shuffled here: Keras would draw from the global random state.
        order = rng.permutation(len(samples))
        trained.fit(
            samples.spins[order],
            samples.log_weights[order, None],
            BATCH,
            shuffle=False,
            verbose=0,
        )
    centre(model, samples)


def _variance(log_weights: Any, predicted: Any) -> Any:
    """Squared deviations of the residuals from their mean in the batch.

    If the loss included the mean, the other weights would have to wait for the offset,
    which follows at the pace of the learning rate.
    """
    deviations = log_weights - predicted
    return ops.square(deviations - ops.mean(deviations))


def residuals(model: keras.Model, samples: Samples) -> Floats:
    r"""Computes \(\delta = \ln W - \ln W_\mathrm{eff}\), shape `(samples,)`."""
    return samples.log_weights - log_weights(model, samples.spins)


def centre(model: keras.Model, samples: Samples) -> None:
    """Sets the offset so that the mean residual of the samples is zero."""
    offset = model.get_layer(READOUT).offset
    offset.assign(np.asarray(offset) + residuals(model, samples).mean())
