"""False alarms where arguments are chosen after all results were seen.

benchmarks/false_alarms_of_choices.py is the long version, with 1,000 trials.
"""

import numpy as np
import pytest
from scipy.stats import binom

from keras_wm.research.null_trials import choices
from keras_wm.research.null_trials.outcomes import (
    Figures,
    NullPath,
    collect,
    failing,
)

# Without counting, two of three trials have a layer with a smaller p-value.
LEVEL = 0.2


@pytest.mark.parametrize(
    ("trial", "trials"),
    [
        (choices.network_trial, 24),
        (choices.claimed_trial, 30),
        (choices.recipients_trial, 5),
    ],
)
def test_what_was_chosen_afterwards_is_counted(trial, trials):
    # A binomial test of each path, with a false alarm rate of 1e-4 in all 19 of them.
    for path in collect(map(trial, range(trials)), choices.FACTORS):
        small = round(path.share_below(LEVEL) * path.count)
        level = min(1.0, path.factor * LEVEL)
        assert binom.sf(small - 1, path.count, level) > 1e-4 / 19, path.name


def test_the_tests_of_paths_find_what_is_not_exact():
    rng = np.random.default_rng(3)
    uniform = np.log10(rng.uniform(size=2000))
    best_of_two = np.log10(rng.uniform(size=(2000, 2)).min(axis=1))
    paths = [
        NullPath("uniform", 1.0, list(uniform), list(uniform)),
        NullPath("chosen", 1.0, list(best_of_two)),
        NullPath("chosen, as it is stated", 2.0, list(best_of_two)),
        NullPath("not uniform", 1.0, list(uniform), list(best_of_two)),
        NullPath("conservative", 1.0, list(uniform / 2)),
    ]
    # A false alarm or a miss has a probability below 1e-5.
    assert {path.name for path in failing(paths, 1e-6)} == {"chosen", "not uniform"}


def test_figures_are_collected_by_path():
    trials = [{"a": Figures(-1.0, -2.0)}, {"a": Figures(-3.0), "b": Figures(0.0)}]
    first, second = collect(trials, {"b": 2.0})
    assert (first.corrected, first.single) == ([-1.0, -3.0], [-2.0])
    assert (first.factor, second.factor) == (1.0, 2.0)
    assert first.share_below(0.1) == 1.0
    assert first.share_below(0.01) == 0.5
