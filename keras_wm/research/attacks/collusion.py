"""Collusion: the recipients of several copies average them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_wm.research.attacks.architecture import arrays_of, weights_of
from keras_wm.research.attacks.attack import Attack, published_copy
from keras_wm.research.datasets import Examples

# Strengths as shares of the plain mean.
_PARTS = (0.25, 0.5, 0.75, 1.0)


def average(models: Sequence[Any], shares: Sequence[float] | None = None) -> Any:
    """Returns the weighted mean of networks of one architecture.

    Args:
        models: Built Keras models, which are not changed.
        shares: Weight of each model in the mean; the sum is 1. Defaults to equal
            shares.

    Returns:
        A `keras.Model`, not compiled. Integer variables, such as the state of a random
        generator, are those of the first model.

    Raises:
        ValueError: If there are fewer than two models, or their shapes differ.
    """
    if len(models) < 2:
        raise ValueError(
            f"Expected two models or more to average. Received: {len(models)}"
        )
    if shares is None:
        shares = [1 / len(models)] * len(models)
    result = published_copy(models[0])
    # Matched by order, because layers can have different names in each copy.
    copies = [list(arrays_of(model).values()) for model in models]
    shapes = [[array.shape for array in copy] for copy in copies]
    if any(copy != shapes[0] for copy in shapes):
        raise ValueError(
            "Expected models of one architecture, whose weights have the same "
            f"shapes. Received: {', '.join(repr(model.name) for model in models)}"
        )
    for variable, *arrays in zip(weights_of(result).values(), *copies, strict=True):
        if arrays[0].dtype.kind == "f":
            stacked = np.stack(arrays).astype(np.float64)
            variable.assign(np.tensordot(np.asarray(shares), stacked, 1))
    return result


def averaging(copies: Sequence[Any]) -> Attack:
    """Returns an attack by someone who has further copies of the network.

    Args:
        copies: Models of the same architecture as the attacked one, with other marks
            or without a mark.

    Returns:
        An `Attack`. Its strength is the share of the further copies in the mean.

    Raises:
        ValueError: If there are no further copies.
    """
    count = len(copies)
    if not count:
        raise ValueError("Expected further copies to average with. Received: none")

    def change(model: Any, data: Examples | None, share: float, seed: int) -> Any:
        return average([model, *copies], [1 - share] + [share / count] * count)

    return Attack(
        "averaging",
        f"Averages the weights with those of {count} further copies.",
        "share of the further copies",
        tuple(part * count / (count + 1) for part in _PARTS),
        change,
    )
