"""The figures of the marks in a model that is being trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_wm.embedding.marked_layers import (
    MarkedLayer,
    check_is_model,
    find_marked_layers,
    trained_scope,
)
from keras_wm.scheme.detection import Detection, detect
from keras_wm.utils.arrays import Floats

if TYPE_CHECKING:
    from keras_wm.files.keras_model import KerasModel

FIGURES = ("ber", "z_min", "z_mean", "embedding_loss")
Figures = dict[str, float]


class Measurement(NamedTuple):
    """The measurement of the mark on one layer.

    Attributes:
        marked: The layer and its regularizer.
        detection: The detection of the message in the kernel.
        loss: The mean embedding loss per bit, without the factor lambda.
    """

    marked: MarkedLayer
    detection: Detection
    loss: float


def measure(
    model: KerasModel, trainable_variables: Sequence[Any] | None = None
) -> Figures:
    """Measures the marks of a model: the figures of `BitErrorRate`, without `fit`.

    Call it in your own training loop as often as you want to see the figures.

    Args:
        model: A Keras model with its marks' regularizers.
        trainable_variables: The values of `model.trainable_variables`, in this order,
            if your loop keeps them outside of the model, as JAX's stateless loops do.
            Defaults to `None`: the model's own values.

    Returns:
        A dictionary of floats: `ber`, `z_min`, `z_mean` and `embedding_loss` of all
        marks together and, if several layers are marked, `ber/<layer>` and so on; see
        `BitErrorRate`. All are `nan` if the model has no mark, or no key is loaded.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the number of values differs from that of the variables.

    Example:

    ```python
    for epoch in range(20):
        for x, y in batches:
            train_step(x, y)
        print(epoch, keras_wm.measure(model)["ber"])
    ```
    """
    check_is_model(model)
    with trained_scope(model, trainable_variables):
        return figures(measurements(model))


def measurements(model: Any) -> dict[str, Measurement]:
    """Returns what is measured of each mark whose key is loaded, by layer name."""
    measured: dict[str, Measurement] = {}
    marked_layers = find_marked_layers(model)
    names = {marked.name for marked in marked_layers}
    for marked in marked_layers:
        kernel = marked.kernel
        if marked.regularizer.key is None or kernel is None:
            continue
        # Layers of several nested models that share a name are numbered.
        numbered = (f"{marked.name}_{number}" for number in count(2))
        unused = (name for name in numbered if name not in names | measured.keys())
        name = next(unused) if marked.name in measured else marked.name
        losses = marked.regularizer.bit_losses(kernel)
        measured[name] = Measurement(
            marked,
            detect(ops.convert_to_numpy(kernel), marked.regularizer.key),
            float(ops.convert_to_numpy(ops.mean(losses))),
        )
    return measured


def figures(measured: dict[str, Measurement]) -> Figures:
    """Returns the figures of all marks together and, if there are several, of each."""
    values = _summary(list(measured.values()))
    if len(measured) > 1:
        for layer, measurement in measured.items():
            for name, value in _summary([measurement]).items():
                values[f"{name}/{layer}"] = value
    return values


def _summary(measured: list[Measurement]) -> Figures:
    """Returns the figures of some marks together.

    They are Python floats, because a NumPy scalar in `History` cannot be written as
    JSON.
    """
    if not measured:
        return dict.fromkeys(FIGURES, math.nan)
    bits = [measurement.detection.bits for measurement in measured]
    z = np.concatenate([measurement.detection.z for measurement in measured])
    losses = [measurement.loss for measurement in measured]
    return {
        "ber": float(np.mean(z <= 0)),
        "z_min": float(z.min()),
        "z_mean": float(z.mean()),
        "embedding_loss": float(np.average(losses, weights=bits)),
    }


def mean_in_errors(changes: Floats) -> float:
    """Returns the mean of some changes of scores, in units of its standard error.

    Without a penalty, the changes do not depend on the key, and this is about standard
    normal. It is 0 if all changes are equal.
    """
    spread = float(np.std(changes, ddof=1))
    return float(np.mean(changes)) / spread * changes.size**0.5 if spread else 0.0


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
