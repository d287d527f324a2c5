"""Pruning: setting weights to zero."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from keras_wm.research.attacks.attack import Attack, each_kernel, kernel_variables
from keras_wm.research.datasets import Examples
from keras_wm.utils.arguments import check_choice

Order = Literal["ascending", "descending", "random"]


def prune(
    kernel: NDArray[Any], share: float, order: Order = "ascending", seed: int = 0
) -> NDArray[Any]:
    """Sets a share of a kernel's weights to zero (Uchida et al. 2017, section 4.4.2).

    Args:
        kernel: The weights, of any shape.
        share: Share of the weights to prune, from 0 to 1.
        order: `"ascending"` prunes the smallest magnitudes first, as compression
            does; `"descending"` prunes the largest first; `"random"` ignores the
            magnitudes.
        seed: Random seed of the random order.

    Returns:
        A copy with `round(share * size)` weights set to zero.

    Raises:
        ValueError: If the share is out of range or the order is unknown.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Expected 0 <= share <= 1. Received: share={share!r}")
    check_choice("order", order, get_args(Order))
    if order == "random":
        ranks = np.random.default_rng(seed).permutation(kernel.size)
    else:
        sign = 1 if order == "ascending" else -1
        ranks = np.argsort(sign * np.abs(kernel.reshape(-1)), kind="stable")
    pruned = kernel.copy()
    pruned.reshape(-1)[ranks[: round(share * kernel.size)]] = 0
    return pruned


def prune_filters(kernel: NDArray[Any], share: float) -> NDArray[Any]:
    """Sets the filters with the smallest L1 norms to zero (Li et al., ICLR 2017).

    Args:
        kernel: The weights, filters last.
        share: Share of the filters to prune, from 0 to 1.

    Returns:
        A copy with `round(share * filters)` filters set to zero.
    """
    norms = np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 1)))
    pruned = kernel.copy()
    pruned[..., np.argsort(norms, kind="stable")[: round(share * norms.size)]] = 0
    return pruned


def hold_zeros(variable: Any) -> None:
    """Keeps the weights that are zero at zero while the others are trained."""
    kept = (np.asarray(variable) != 0).astype(np.float32)
    variable.constraint = lambda value: value * kept


def _globally(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
    """Prunes the smallest weights of all kernels together."""
    variables = kernel_variables(model)
    kernels = [np.asarray(variable) for variable in variables]
    pruned = prune(np.concatenate([kernel.reshape(-1) for kernel in kernels]), strength)
    ends = np.cumsum([kernel.size for kernel in kernels])[:-1]
    for variable, weights in zip(variables, np.split(pruned, ends), strict=True):
        variable.assign(weights.reshape(variable.shape))
    return model


def _by_filters(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
    """Prunes filters of each kernel except the last, whose filters are the outputs."""
    for variable in kernel_variables(model)[:-1]:
        variable.assign(prune_filters(np.asarray(variable), strength))
    return model


_attack = partial(
    Attack,
    unit="share of the weights",
    strengths=(0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 0.99),
)
PRUNING = _attack(
    "pruning",
    "Sets the smallest weights of each kernel to zero.",
    change=each_kernel(lambda kernel, share, _: prune(kernel, share)),
)
GLOBAL_PRUNING = _attack(
    "global-pruning",
    "Sets the smallest weights of all kernels together to zero.",
    change=_globally,
)
RANDOM_PRUNING = _attack(
    "random-pruning",
    "Sets randomly chosen weights to zero.",
    change=each_kernel(
        lambda kernel, share, rng: prune(
            kernel, share, "random", seed=int(rng.integers(2**31))
        )
    ),
)
FILTER_PRUNING = Attack(
    "filter-pruning",
    "Sets the filters with the smallest norms to zero.",
    "share of the filters",
    (0.1, 0.3, 0.5, 0.7, 0.9),
    _by_filters,
)
