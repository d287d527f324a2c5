r"""How well networks of two kinds are told apart, by somebody who has seen others.

The measure is the area under the ROC curve, which is the probability that a marked
network scores above an unmarked one. Two things make it look better than it is: a
detector is fitted to the networks that it is tried on, and of many detectors the best
is shown. An outsider gains by neither. So she gets four fifths of the networks of each
kind, by which she chooses a detector and its direction, and that one is tried on the
rest. Without a difference this gives 0.5, however many detectors there are. One who
has more networks may choose better: up to what the best reaches in hindsight, if that
is more than `best_by_chance`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arrays import Floats

# Marked and unmarked networks, a line of features each: the weights of the features in
# the score by which they are told apart.
Fit = Callable[[Floats, Floats], Floats]

_LEVEL_95 = 1.959963984540054
# Of the covariance of several features: 20 networks do not tell it in 60 dimensions.
_SHRINKAGE = 0.5
FOLDS = 5
_REPEATS = 10
_PERMUTATIONS = 2000


def auc(marked: ArrayLike, unmarked: ArrayLike) -> Any:
    """The probability that a marked network scores above an unmarked one.

    Args:
        marked: Scores, shape `(m,)`, or several of each network, shape `(m, d)`.
        unmarked: The same of the n unmarked networks.

    Returns:
        The share of the pairs in which it does, ties counted half: 0.5 by chance,
        and below where the marked ones score lower. A number, or one for each score.
    """
    from scipy.stats import rankdata

    m, n = len(np.asarray(marked)), len(np.asarray(unmarked))
    ranks = rankdata(np.concatenate([marked, unmarked]), axis=0)
    return _area(ranks[:m].sum(axis=0), m, n)


def _area(rank_sum: Any, m: int, n: int) -> Any:
    """Mann and Whitney's U, which counts the pairs, as a share of them."""
    return (rank_sum - m * (m + 1) / 2) / (m * n)


def auc_interval(area: float, marked: int, unmarked: int) -> tuple[float, float]:
    r"""The 95 % interval of an area under the ROC curve.

    Those \(\theta\) that lie no more than 1.96 of their own standard errors from the
    area (Newcombe 2006, method 5), with the variance of Hanley and McNeil (1982) and
    the mean number of networks \(N\) in it:

    \[\frac{\theta (1 - \theta)}{m n} \left(1 + (N - 1) \left(
    \frac{1 - \theta}{2 - \theta} + \frac{\theta}{1 + \theta}\right)\right).\]

    Unlike an interval by the area's own standard error, it has a width where all
    networks are told apart.

    Args:
        area: What was measured.
        marked: m, how many marked networks.
        unmarked: n, how many unmarked ones.

    Returns:
        Its lower and its upper end.
    """
    more = (marked + unmarked) / 2 - 1

    def beyond(theta: float) -> bool:
        unequal = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + more * unequal) / (marked * unmarked)
        return abs(theta - area) > _LEVEL_95 * sqrt(variance)

    return _border(area, 0.0, beyond), _border(area, 1.0, beyond)


def _border(inside: float, outside: float, beyond: Callable[[float], bool]) -> float:
    """Where from inside to outside a condition begins to hold, by bisection."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
    return (inside + outside) / 2


def best_single(columns: Sequence[int]) -> Fit:
    """The feature by which the networks at hand are told apart best, either way round.

    Args:
        columns: The features' places.
    """
    chosen = list(columns)

    def fit(marked: Floats, unmarked: Floats) -> Floats:
        excess = auc(marked[:, chosen], unmarked[:, chosen]) - 0.5
        best = int(np.argmax(np.abs(excess)))
        weights = np.zeros(marked.shape[1])
        weights[chosen[best]] = np.sign(excess[best])
        return weights

    return fit


def discriminant(columns: Sequence[int]) -> Fit:
    r"""Fisher's linear discriminant of some features, its covariance shrunk.

    \(w = \big((1 - \gamma) S + \gamma I\big)^{-1} (\mu_1 - \mu_0)\) of features that
    are divided by their standard deviations within the kinds, with S their correlation
    and \(\gamma = \tfrac12\) (Friedman 1989).

    Args:
        columns: The features' places.
    """
    chosen = list(columns)

    def fit(marked: Floats, unmarked: Floats) -> Floats:
        kinds = [marked[:, chosen], unmarked[:, chosen]]
        centred = np.concatenate([kind - kind.mean(axis=0) for kind in kinds])
        spread = centred.std(axis=0)
        spread[spread == 0] = 1
        correlation = (centred / spread).T @ (centred / spread) / len(centred)
        shrunk = (1 - _SHRINKAGE) * correlation + _SHRINKAGE * np.eye(len(chosen))
        difference = (kinds[0].mean(axis=0) - kinds[1].mean(axis=0)) / spread
        weights = np.zeros(marked.shape[1])
        weights[chosen] = np.linalg.solve(shrunk, difference) / spread
        return weights

    return fit


def best_of(fits: Sequence[Fit]) -> Fit:
    """What an outsider does who has many detectors: fits that which does best.

    It is chosen by `cross_fitted_auc` on the networks that she has.
    """

    def fit(marked: Floats, unmarked: Floats) -> Floats:
        areas = [cross_fitted_auc(one, marked, unmarked, repeats=1) for one in fits]
        return fits[int(np.argmax(areas))](marked, unmarked)

    return fit


def cross_fitted_auc(
    fit: Fit, marked: Floats, unmarked: Floats, repeats: int = _REPEATS
) -> float:
    """The area under the ROC curve on networks that a detector was not fitted to.

    Networks of each kind are parted into fifths at random; each fifth is for the trial
    once, and the others for the fit. Without a difference 0.5 is expected, however
    many detectors the fit chooses from.

    Args:
        fit: Makes the detector.
        marked: A line of features for each network; five networks or more.
        unmarked: The same.
        repeats: How many times they are parted.

    Returns:
        The mean over all trials.
    """
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(repeats):
        parts = zip(_parted(marked, rng), _parted(unmarked, rng), strict=True)
        for (marked_fit, marked_trial), (unmarked_fit, unmarked_trial) in parts:
            weights = fit(marked_fit, unmarked_fit)
            areas.append(auc(marked_trial @ weights, unmarked_trial @ weights))
    return float(np.mean(areas))


def _parted(
    networks: Floats, rng: np.random.Generator
) -> Iterator[tuple[Floats, Floats]]:
    """Four fifths of the networks and the last fifth, in all five ways."""
    order = rng.permutation(len(networks))
    for trial in np.array_split(order, FOLDS):
        yield networks[np.setdiff1d(order, trial)], networks[trial]


def best_by_chance(marked: Floats, unmarked: Floats) -> float:
    """What the best of all single features reaches in hindsight if kinds are nothing.

    Args:
        marked: A line of features for each network.
        unmarked: The same.

    Returns:
        What the largest area, or 1 minus the smallest, stays below in 95 % of the
        ways to call as many of these networks marked.
    """
    from scipy.stats import rankdata

    m, n = len(marked), len(unmarked)
    ranks = rankdata(np.concatenate([marked, unmarked]), axis=0)
    rng = np.random.default_rng(0)
    called = rng.permuted(np.tile(np.arange(m + n) < m, (_PERMUTATIONS, 1)), axis=1)
    areas = _area(called @ ranks, m, n)
    return float(np.quantile(np.maximum(areas, 1 - areas).max(axis=1), 0.95))
