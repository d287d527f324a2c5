"""Collusion: owners of several copies average them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.research.attacks.attack import Attack, published_copy
from keras_wm.research.attacks.equivalence import weights_of
from keras_wm.research.datasets import Examples

_PARTS = (0.25, 0.5, 0.75, 1.0)


def average(models: Sequence[Any], shares: Sequence[float] | None = None) -> Any:
    """The weighted mean of the weights of networks of one architecture.

    Args:
        models: Built Keras models; they are left as they are.
        shares: How much of each, of sum 1. Defaults to equal shares.

    Returns:
        A `keras.Model`, not compiled. What is no floating-point number, such as the
        state of a random generator, is that of the first.

    Raises:
        ValueError: If there are fewer than two, or they are not alike.
    """
    if len(models) < 2:
        raise ValueError(
            f"Expected two models or more to average. Received: {len(models)}"
        )
    if shares is None:
        shares = [1 / len(models)] * len(models)
    result = published_copy(models[0])
    # By their order, for layers may have other names in each copy.
    every = [list(weights_of(model).values()) for model in models]
    shapes = [[tuple(one.shape) for one in variables] for variables in every]
    if any(other != shapes[0] for other in shapes):
        raise ValueError(
            "Expected models of one architecture, whose weights have the same "
            f"shapes. Received: {', '.join(repr(model.name) for model in models)}"
        )
    for variable, alike in zip(
        weights_of(result).values(), zip(*every, strict=True), strict=True
    ):
        if np.asarray(variable).dtype.kind == "f":
            variable.assign(_mean([np.asarray(one) for one in alike], shares))
    return result


def _mean(arrays: list[NDArray[Any]], shares: Sequence[float]) -> NDArray[Any]:
    mean: NDArray[Any] = np.tensordot(
        np.asarray(shares), np.stack(arrays).astype(np.float64), 1
    )
    return mean


def averaging(copies: Sequence[Any]) -> Attack:
    """An attack by somebody who has further copies, with other marks or without.

    Args:
        copies: Models of the same architecture as the one that is attacked.

    Returns:
        An `Attack` whose strength is the share of the others, up to the plain mean.
    """
    others = len(copies)
    if not others:
        raise ValueError("Expected further copies to average with. Received: none")

    def change(model: Any, data: Examples | None, share: float, seed: int) -> Any:
        return average([model, *copies], [1 - share] + [share / others] * others)

    return Attack(
        "averaging",
        f"Averages the weights with those of {others} further copies.",
        "share of the others",
        tuple(part * others / (others + 1) for part in _PARTS),
        change,
    )
