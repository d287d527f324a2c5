"""Collusion: the recipients of several copies combine them to hide their marks.

The differences of the copies show where they are marked. Weights can be averaged,
chosen from one of the copies each, or freed from the directions in which the copies
differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from keras_wm.research.attacks.architecture import arrays_of, weights_of
from keras_wm.research.attacks.attack import Attack, published_copy
from keras_wm.research.datasets import Examples
from keras_wm.utils.arguments import check_choice
from keras_wm.utils.arrays import Floats

# Sides of a kernel W of shape (M, L): the inputs are its rows, the filters its columns.
Side = Literal["inputs", "filters", "both"]
# How each weight is chosen from those of the copies.
Choice = Literal["median", "smallest", "random", "outlier"]

# Strengths as shares of the plain mean.
_PARTS = (0.25, 0.5, 0.75, 1.0)
# A singular value below this share of the largest is rounding error.
_NEGLIGIBLE = 1e-6


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
    if shares is None:
        shares = [1 / len(models)] * len(models)
    return _combined(models, lambda stack: np.tensordot(np.asarray(shares), stack, 1))


def without_differences(stack: Floats, side: Side, share: float) -> Floats:
    r"""Returns the mean of several copies of a kernel without their differences' span.

    With the largest left and right singular vectors U and V of all differences, the
    mean W becomes \(W - U U^T W\) for the inputs, \(W - W V V^T\) for the filters or
    \(W - U U^T W V V^T\) for both. Marks of low rank r are in the first r singular
    vectors of a difference, so this removes them.

    Args:
        stack: The copies, shape `(c, ..., L)`.
        side: Side whose singular vectors are removed.
        share: Share of the squared norm of the differences that the removed singular
            vectors hold.
    """
    copies = stack.reshape(len(stack), -1, stack.shape[-1])
    mean: Floats = copies.mean(axis=0)
    differences = copies[1:] - copies[:1]
    part = mean
    if side != "filters":
        u = _largest_vectors(np.hstack(list(differences)), share)
        part = u @ (u.T @ part)
    if side != "inputs":
        v = _largest_vectors(np.vstack(list(differences)).T, share)
        part = (part @ v) @ v.T
    left: Floats = mean - part
    return left.reshape(stack.shape[1:])


def chosen(stack: Floats, choice: Choice, rng: np.random.Generator) -> Floats:
    """Returns each weight of a kernel as one of the copies has it.

    Args:
        stack: The copies, shape `(c, ...)`.
        choice: The weight that is chosen: the median, the smallest one, a random one,
            or the outlier, which differs most from the mean.
        rng: Source of randomness.
    """
    if choice == "median":
        return np.asarray(np.median(stack, axis=0))
    if choice == "smallest":
        return np.asarray(stack.min(axis=0))
    if choice == "random":
        index = rng.integers(len(stack), size=stack.shape[1:])
    else:
        index = np.abs(stack - stack.mean(axis=0)).argmax(axis=0)
    values: Floats = np.take_along_axis(stack, index[None], 0)[0]
    return values


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
    count = _count(copies)

    def change(model: Any, data: Examples | None, share: float, seed: int) -> Any:
        return average([model, *copies], [1 - share] + [share / count] * count)

    return Attack(
        "averaging",
        f"Averages the weights with those of {count} further copies.",
        "share of the further copies",
        tuple(part * count / (count + 1) for part in _PARTS),
        change,
    )


def difference_removal(copies: Sequence[Any], side: Side) -> Attack:
    """Returns an attack that removes the span of the differences from every kernel.

    Args:
        copies: Further copies, as for `averaging`.
        side: Side of the kernels, see `without_differences`.

    Returns:
        An `Attack`. Its strength is the share of the differences' squared norm.

    Raises:
        ValueError: If there are no further copies, or the side is unknown.
    """
    count = _count(copies)
    check_choice("side", side, get_args(Side))

    def change(model: Any, data: Examples | None, share: float, seed: int) -> Any:
        def combine(stack: Floats) -> Floats:
            if stack.ndim < 3:
                return np.asarray(stack.mean(axis=0))
            return without_differences(stack, side, share)

        return _combined([model, *copies], combine)

    directions = {"both": "both sides"}.get(side, f"the {side}")
    return Attack(
        f"difference-removal-{side}",
        f"Averages with {count} further copies, and removes from every kernel the "
        f"directions of {directions} in which the copies differ.",
        "share of the differences' squared norm",
        (0.5, 0.9, 0.99),
        change,
    )


def choosing(copies: Sequence[Any], choice: Choice) -> Attack:
    """Returns an attack that takes each weight from one of the copies.

    Args:
        copies: Further copies, as for `averaging`.
        choice: The copy that a weight is taken from, see `chosen`.

    Returns:
        An `Attack`. Its strength is the share of weights that are chosen in this way;
        the others are averaged.

    Raises:
        ValueError: If there are no further copies, or the choice is unknown.
    """
    count = _count(copies)
    check_choice("choice", choice, get_args(Choice))

    def change(model: Any, data: Examples | None, share: float, seed: int) -> Any:
        rng = np.random.default_rng(seed)

        def combine(stack: Floats) -> Floats:
            is_chosen = rng.random(stack.shape[1:]) < share
            return np.where(is_chosen, chosen(stack, choice, rng), stack.mean(axis=0))

        return _combined([model, *copies], combine)

    return Attack(
        f"choosing-{choice}",
        f"Takes the {choice} of the values that a weight has in {count + 1} copies.",
        "share of the weights",
        (0.5, 1.0),
        change,
    )


def _combined(models: Sequence[Any], combine: Callable[[Floats], Floats]) -> Any:
    """Returns a network with a combination of the weights of several networks.

    `combine` is called with the values of each weight, shape `(c, ...)`.
    """
    if len(models) < 2:
        raise ValueError(
            f"Expected two models or more to combine. Received: {len(models)}"
        )
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
            variable.assign(combine(np.stack(arrays).astype(np.float64)))
    return result


def _largest_vectors(matrix: Floats, share: float) -> Floats:
    """Returns the left singular vectors that hold a share of the squared norm."""
    u, values, _ = np.linalg.svd(matrix, full_matrices=False)
    squares = np.cumsum(values**2)
    # At least one vector, and none that only rounding errors have.
    count = 1 + int(np.searchsorted(squares, share * squares[-1]))
    return u[:, : min(count, int(np.sum(values > _NEGLIGIBLE * values[0])))]


def _count(copies: Sequence[Any]) -> int:
    """Returns the number of further copies; raises ValueError if there are none."""
    if not len(copies):
        raise ValueError("Expected further copies to combine. Received: none")
    return len(copies)
