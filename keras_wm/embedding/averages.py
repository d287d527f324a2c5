"""The averaged weights that an optimizer with `use_ema` leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras


def averages_weights(model: Any) -> bool:
    """Returns whether the optimizer of a model keeps moving averages of its weights."""
    optimizers = _optimizers(getattr(model, "optimizer", None))
    return any(getattr(optimizer, "use_ema", False) for optimizer in optimizers)


def averaged_scope(model: Any) -> keras.StatelessScope | None:
    """Returns a scope in which a model's variables have their moving averages.

    With `use_ema=True`, `fit` overwrites the weights with these averages when it ends.

    Args:
        model: A compiled Keras model.

    Returns:
        The scope, or `None` if the optimizer keeps no averages.
    """
    averages = [
        (variable, average.value)
        for optimizer in _optimizers(getattr(model, "optimizer", None))
        for variable, average in _averages(optimizer)
    ]
    return keras.StatelessScope(averages) if averages else None


def _optimizers(optimizer: Any) -> Iterator[Any]:
    """Yields an optimizer, or those inside of it."""
    inner = getattr(optimizer, "inner_optimizer", None)  # of a LossScaleOptimizer
    several = getattr(optimizer, "optimizers", None)  # of a MultiOptimizer
    if inner is not None:
        yield from _optimizers(inner)
    elif several:
        for part in several:
            yield from _optimizers(part)
    elif optimizer is not None:
        yield optimizer


def _averages(optimizer: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the variables of an optimizer with their averages."""
    if getattr(optimizer, "use_ema", False) and optimizer.built:
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(
            optimizer._trainable_variables, averages, strict=True
        ):
            if average is not None:
                yield variable, average
