"""Areas under ROC curves, compared with scikit-learn and with chance."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from keras_wm.research.experiments.roc import (
    auc,
    auc_interval,
    best_by_chance,
    best_of,
    best_single,
    cross_fitted_auc,
    discriminant,
)

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


def test_each_of_several_scores_has_its_own_area(rng):
    marked, unmarked = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    separate = [auc(marked[:, k], unmarked[:, k]) for k in range(3)]
    assert auc(marked, unmarked).tolist() == separate


@given(SCORES, SCORES)
def test_the_area_is_that_of_scikit_learn_even_with_ties(marked, unmarked):
    kinds = [1] * len(marked) + [0] * len(unmarked)
    assert auc(marked, unmarked) == pytest.approx(
        roc_auc_score(kinds, marked + unmarked)
    )


@pytest.mark.parametrize("area, m, n", [(0.5, 20, 20), (0.9, 20, 40), (0.03, 7, 5)])
def test_the_ends_are_196_of_their_own_standard_errors_from_the_area(area, m, n):
    def excess(theta):
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        # Hanley and McNeil's variance, with the mean number in place of m and n.
        more = (m + n) / 2 - 1
        spread = theta * (1 - theta) + more * (q1 - theta**2 + q2 - theta**2)
        return (theta - area) ** 2 - stats.norm.ppf(0.975) ** 2 * spread / (m * n)

    low, high = auc_interval(area, m, n)
    assert low == pytest.approx(brentq(excess, 0, area), abs=1e-9)
    assert high == pytest.approx(brentq(excess, area, 1), abs=1e-9)


def test_the_interval_of_a_perfect_area_has_a_width():
    low, high = auc_interval(1.0, 20, 20)
    assert 0.8 < low < 0.95
    assert high == pytest.approx(1)
    assert auc_interval(0.0, 20, 20) == pytest.approx((0, 1 - low))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_the_interval_holds_the_true_area_in_19_of_20_trials(rng, shift):
    """At 95 %, fewer than 927 of 1,000 trials have a probability of 1 in 1,000."""
    true = stats.norm.cdf(shift / 2**0.5)
    count = 0
    for _ in range(1000):
        area = auc(rng.normal(shift, 1, 20), rng.normal(0, 1, 20))
        low, high = auc_interval(area, 20, 20)
        count += low <= true <= high
    assert count >= 927


def test_the_discriminant_is_that_of_scikit_learn(rng):
    mixing = rng.normal(size=(6, 6))
    marked = (rng.normal(size=(30, 6)) + 0.4) @ mixing
    unmarked = rng.normal(size=(30, 6)) @ mixing
    columns = [0, 2, 3, 5]
    weights = discriminant(columns)(marked, unmarked)
    assert not weights[[1, 4]].any()
    both = np.concatenate([marked, unmarked])[:, columns]
    centred = both - np.repeat([both[:30].mean(0), both[30:].mean(0)], 30, axis=0)
    spread = centred.std(axis=0)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)
    reference.fit(both / spread, [1] * 30 + [0] * 30)
    expected = reference.coef_[0] / spread
    np.testing.assert_allclose(
        weights[columns] / np.linalg.norm(weights),
        expected / np.linalg.norm(expected),
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_the_best_single_feature_has_a_direction(rng, sign):
    marked, unmarked = rng.normal(size=(2, 9, 4))
    marked[:, 1:3] += [2 * sign, 9]
    weights = best_single([0, 1, 3])(marked, unmarked)
    assert weights.tolist() == [0, sign, 0, 0]


def test_a_constant_feature_gives_an_area_of_one_half():
    same = np.ones((8, 2))
    assert cross_fitted_auc(discriminant([0, 1]), same, same, 1) == 0.5


def outsider(count):
    """Chooses among `count` features, and discriminants of all and of half of them."""
    return best_of(
        [
            best_single(range(count)),
            discriminant(range(count)),
            discriminant(range(count // 2)),
        ]
    )


def hindsight(marked, unmarked):
    """Returns the area of the best feature on the networks used to choose it."""
    areas = auc(marked, unmarked)
    return max(*areas, *(1 - areas))


def test_an_outsider_gains_nothing_from_noise(rng):
    """Four standard errors of the mean of 40 trials are about 0.066."""
    trials = rng.normal(size=(40, 2, 20, 12))
    areas = [cross_fitted_auc(outsider(12), *trial, repeats=1) for trial in trials]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.066)
    assert np.mean([hindsight(*trial) for trial in trials]) > 0.62


def test_an_outsider_finds_the_feature_that_differs(rng):
    marked, unmarked = rng.normal(size=(2, 20, 12))
    marked[:, 7] -= 3
    assert np.argmin(outsider(12)(marked, unmarked)) == 7
    assert cross_fitted_auc(outsider(12), marked, unmarked) > 0.9


def test_the_area_by_chance_is_a_quantile_over_all_ways_to_choose_networks(rng):
    features = rng.normal(size=(8, 2))
    areas = []
    for chosen in combinations(range(8), 4):
        others = np.setdiff1d(np.arange(8), chosen)
        areas.append(hindsight(features[list(chosen)], features[others]))
    expected = np.quantile(areas, 0.95, method="inverted_cdf")
    # Areas are multiples of 1/16, and a random sample of the ways can be one off.
    assert best_by_chance(features[:4], features[4:]) == pytest.approx(
        expected, abs=1 / 16
    )


def test_one_in_20_trials_of_noise_exceeds_the_area_by_chance(rng):
    """At most 3 or at least 32 of 300 trials have a probability of 1 in 1,000."""
    trials = rng.normal(size=(300, 2, 12, 5))
    above = sum(hindsight(*trial) > best_by_chance(*trial) for trial in trials)
    assert 3 < above < 32
