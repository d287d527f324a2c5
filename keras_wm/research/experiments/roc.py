r"""Detectors that distinguish marked from unmarked networks, measured on new networks.

The measure is the area under the ROC curve (AUC), which is the probability that a
marked network scores above an unmarked one. Two mistakes inflate it: to test a detector
on the networks that it was fitted to, and to report the best of many detectors. An
outsider gains from neither. So four fifths of the networks of each kind are used to
choose and fit a detector, which is then tested on the rest. Without a difference
between the kinds the expected AUC is 0.5, for any number of detectors. An outsider with
more networks can choose better. The limit is the AUC of the best detector in hindsight,
if that exceeds `best_by_chance`.

`auc` and `discriminant` compute what scikit-learn's `roc_auc_score` and shrunk
`LinearDiscriminantAnalysis` compute. Replace them only when the recorded experiments
are run again: the last digits of their tables can change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arrays import Floats

# Fits a detector to the features of marked and of unmarked networks, with one row for
# each network. Returns the weight of each feature in the detector's score.
Fit = Callable[[Floats, Floats], Floats]

_LEVEL_95 = 1.959963984540054
# Shrinkage of the covariance: 20 networks do not determine it in 60 dimensions.
_SHRINKAGE = 0.5
FOLDS = 5
_REPEATS = 10
_PERMUTATIONS = 2000


def auc(marked: ArrayLike, unmarked: ArrayLike) -> Any:
    """Returns the area under the ROC curve.

    It is the share of pairs in which the marked network scores above the unmarked one,
    with ties counted half: 0.5 by chance, lower if marked networks score lower.

    Args:
        marked: Scores of the m marked networks, shape `(m,)`, or d scores of each,
            shape `(m, d)`.
        unmarked: Scores of the n unmarked networks, shape `(n,)` or `(n, d)`.

    Returns:
        One area, or d areas.
    """
    m, n = len(np.asarray(marked)), len(np.asarray(unmarked))
    return _area(_ranks(marked, unmarked)[:m].sum(axis=0), m, n)


def _ranks(marked: ArrayLike, unmarked: ArrayLike) -> Any:
    from scipy.stats import rankdata

    return rankdata(np.concatenate([marked, unmarked]), axis=0)


def _area(rank_sum: Any, m: int, n: int) -> Any:
    """Returns Mann and Whitney's U, which counts pairs, as a share of all pairs."""
    return (rank_sum - m * (m + 1) / 2) / (m * n)


def auc_interval(area: float, marked: int, unmarked: int) -> tuple[float, float]:
    r"""Returns the lower and upper end of the 95 % interval of an AUC.

    The interval holds the \(\theta\) that are within 1.96 of their own standard errors
    of the measured area (Newcombe 2006, method 5). The variance is that of Hanley and
    McNeil (1982) with the mean number of networks \(N = (m + n) / 2\):

    \[\frac{\theta (1 - \theta)}{m n} \left(1 + (N - 1) \left(
    \frac{1 - \theta}{2 - \theta} + \frac{\theta}{1 + \theta}\right)\right).\]

    An interval from the standard error of the area itself would have no width where
    the area is 0 or 1.

    Args:
        area: Measured area.
        marked: m, number of marked networks.
        unmarked: n, number of unmarked networks.
    """
    more = (marked + unmarked) / 2 - 1

    def beyond(theta: float) -> bool:
        unequal = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + more * unequal) / (marked * unmarked)
        return abs(theta - area) > _LEVEL_95 * sqrt(variance)

    return _boundary(area, 0.0, beyond), _boundary(area, 1.0, beyond)


def _boundary(inside: float, outside: float, beyond: Callable[[float], bool]) -> float:
    """Returns the point where `beyond` changes from false to true, by bisection."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
    return (inside + outside) / 2


def best_single(columns: Sequence[int]) -> Fit:
    """Returns a fit that chooses the single feature with the AUC farthest from 0.5."""

    def fit(marked: Floats, unmarked: Floats) -> Floats:
        excess = auc(marked[:, columns], unmarked[:, columns]) - 0.5
        best = int(np.argmax(np.abs(excess)))
        weights = np.zeros(marked.shape[1])
        weights[columns[best]] = np.sign(excess[best])
        return weights

    return fit


def discriminant(columns: Sequence[int]) -> Fit:
    r"""Returns a fit of Fisher's linear discriminant with a shrunk covariance.

    \(w = \big((1 - \gamma) S + \gamma I\big)^{-1} (\mu_1 - \mu_0)\), for features
    divided by their standard deviation within the kinds. S is their correlation matrix
    and \(\gamma = \tfrac12\) (Friedman 1989).
    """

    def fit(marked: Floats, unmarked: Floats) -> Floats:
        kinds = [marked[:, columns], unmarked[:, columns]]
        centred = np.concatenate([kind - kind.mean(axis=0) for kind in kinds])
        spread = centred.std(axis=0)
        spread[spread == 0] = 1
        correlation = (centred / spread).T @ (centred / spread) / len(centred)
        shrunk = (1 - _SHRINKAGE) * correlation + _SHRINKAGE * np.eye(len(columns))
        difference = (kinds[0].mean(axis=0) - kinds[1].mean(axis=0)) / spread
        weights = np.zeros(marked.shape[1])
        weights[columns] = np.linalg.solve(shrunk, difference) / spread
        return weights

    return fit


def best_of(fits: Sequence[Fit]) -> Fit:
    """Returns a fit that chooses among several fits, as an outsider can.

    The one with the largest `cross_fitted_auc` on the given networks is fitted.
    """

    def fit(marked: Floats, unmarked: Floats) -> Floats:
        areas = [
            cross_fitted_auc(candidate, marked, unmarked, repeats=1)
            for candidate in fits
        ]
        return fits[int(np.argmax(areas))](marked, unmarked)

    return fit


def cross_fitted_auc(
    fit: Fit, marked: Floats, unmarked: Floats, repeats: int = _REPEATS
) -> float:
    """Returns the AUC on networks that a detector was not fitted to.

    The networks of each kind are split into five folds at random. The detector is
    fitted to four of them and tested on the fifth, for each of the five folds. The
    result is the mean over all folds and over `repeats` random splits.

    Args:
        fit: Fit of the detector.
        marked: Features of the marked networks, shape `(m, d)` with m >= 5.
        unmarked: Features of the unmarked networks, shape `(n, d)` with n >= 5.
        repeats: Number of random splits.
    """
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(repeats):
        folds = zip(_folds(marked, rng), _folds(unmarked, rng), strict=True)
        for (marked_fit, marked_test), (unmarked_fit, unmarked_test) in folds:
            weights = fit(marked_fit, unmarked_fit)
            areas.append(auc(marked_test @ weights, unmarked_test @ weights))
    return float(np.mean(areas))


def _folds(
    networks: Floats, rng: np.random.Generator
) -> Iterator[tuple[Floats, Floats]]:
    """Yields the networks to fit and the networks to test, for each fold."""
    order = rng.permutation(len(networks))
    for test in np.array_split(order, FOLDS):
        yield networks[np.setdiff1d(order, test)], networks[test]


def best_by_chance(marked: Floats, unmarked: Floats) -> float:
    """Returns the AUC that the best single feature reaches by chance, in hindsight.

    In 95 % of the random ways to call m of these networks marked, the AUC of the best
    feature, in its better direction, is at most this.

    Args:
        marked: Features of the marked networks, shape `(m, d)`.
        unmarked: Features of the unmarked networks, shape `(n, d)`.
    """
    m, n = len(marked), len(unmarked)
    rng = np.random.default_rng(0)
    labels = rng.permuted(np.tile(np.arange(m + n) < m, (_PERMUTATIONS, 1)), axis=1)
    areas = _area(labels @ _ranks(marked, unmarked), m, n)
    return float(np.quantile(np.maximum(areas, 1 - areas).max(axis=1), 0.95))
