"""The cost of a mark: the time of a training step, and of a verification."""

from __future__ import annotations

import os
import time
from statistics import median
from typing import Any

from keras_wm.embedding.attachment import attach
from keras_wm.research.attacks.attack import published_copy
from keras_wm.research.attacks.training import BATCH, RATE, compile_for, label_loss
from keras_wm.research.datasets import Examples
from keras_wm.scheme.key import WatermarkKey
from keras_wm.verification.verification import verify

_WARM_UPS = 3


def step_ratio(
    model: Any, key: WatermarkKey, layer: str, data: Examples, steps: int
) -> float:
    """Returns the time of a training step with the mark over the time without it.

    Two copies of the network are trained alternately on the same batch. The result is
    the median of the ratios of their times.

    Args:
        model: A Keras model; it is not changed.
        key: The key of the mark.
        layer: Name of the layer that is marked.
        data: Training data.
        steps: Number of steps of each copy.
    """
    loss = label_loss(model, data)
    twins = {True: published_copy(model), False: published_copy(model)}
    attach(twins[True], layer, key)
    batch = data.x_train[:BATCH], data.y_train[:BATCH]
    for twin in twins.values():
        compile_for(twin, loss, steps, RATE)
        for _ in range(_WARM_UPS):
            twin.train_on_batch(*batch)
    ratios = []
    for step in range(steps):
        # Alternate the order so that neither twin always runs first.
        order = (True, False) if step % 2 else (False, True)
        seconds = {marked: _step_seconds(twins[marked], batch) for marked in order}
        ratios.append(seconds[True] / seconds[False])
    return median(ratios)


def _step_seconds(model: Any, batch: Any) -> float:
    begin = time.perf_counter()
    model.train_on_batch(*batch)
    return time.perf_counter() - begin


def detection_seconds(model: str | os.PathLike[str], key: WatermarkKey) -> float:
    """Returns the time to verify a model file in this process, in seconds."""
    begin = time.perf_counter()
    verify(model, key)
    return time.perf_counter() - begin
