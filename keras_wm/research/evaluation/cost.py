"""What a mark costs: a training step with and without it, and finding it."""

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
    """The time of a training step with the mark over that of one without.

    Two copies take turns on the same batch, and the median of the ratios counts.
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
    for turn in range(steps):
        # Nobody always goes first.
        order = (True, False) if turn % 2 else (False, True)
        seconds = {marked: _seconds(twins[marked], batch) for marked in order}
        ratios.append(seconds[True] / seconds[False])
    return median(ratios)


def _seconds(model: Any, batch: Any) -> float:
    begin = time.perf_counter()
    model.train_on_batch(*batch)
    return time.perf_counter() - begin


def detection_seconds(model: str | os.PathLike[str], key: WatermarkKey) -> float:
    """How long it takes to verify a file, in this process."""
    begin = time.perf_counter()
    verify(model, key)
    return time.perf_counter() - begin
