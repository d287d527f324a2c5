"""The p-values of all paths from a suspect to a verdict, and the tests of them.

A path is an attempt of `verify` on one kind of suspect. Its p-values are not corrected
for the number of tests, because only one kernel is tested in it. They must be uniform
in [0, 1], except those of reordered filters: these are multiplied by the number of
orders, so small ones must only not be more frequent than uniform ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_wm.research.alignment_trials.networks import TESTED, ArrayModel
from keras_wm.research.alignment_trials.trials import Trial
from keras_wm.verification.verification import verify

REORDERED = "reordered"
# Thresholds at which small p-values are counted.
LEVELS = (0.05, 0.01, 0.001)

# log10 of the p-value of each attempt.
Attempts = dict[str, float]


@dataclass(frozen=True)
class Path:
    """The outcomes of one path.

    Attributes:
        suspect: Kind of the suspects.
        attempt: Name of the attempt, as in `Verification.attempts`.
        log10_p: log10 of the p-value in each trial.
    """

    suspect: str
    attempt: str
    log10_p: Sequence[float]

    @property
    def count(self) -> int:
        """Number of trials."""
        return len(self.log10_p)

    @property
    def is_corrected(self) -> bool:
        """True if the p-values are corrected for the number of orders."""
        return self.attempt == REORDERED

    def share_below(self, level: float) -> float:
        """Returns the share of the p-values that are at most a level."""
        return float(np.mean(np.array(self.log10_p) <= np.log10(level)))

    def p_value(self) -> float:
        """Returns the p-value of the hypothesis that this path has no false alarms.

        Uniform p-values are tested for their distribution (Kolmogorov and Smirnov).
        Corrected ones are tested for too many small ones at each of `LEVELS` (exact
        binomial tests, Bonferroni).
        """
        from scipy.stats import binom, kstest

        if not self.is_corrected:
            return float(kstest(10.0 ** np.array(self.log10_p), "uniform").pvalue)
        tails = [
            binom.sf(round(self.share_below(level) * self.count) - 1, self.count, level)
            for level in LEVELS
        ]
        return min(1.0, len(LEVELS) * float(min(tails)))


def attempts_on(trial: Trial, suspect: ArrayModel, reordered: bool) -> Attempts:
    """Tests the tested layer of a suspect in every way."""
    verification = verify(
        suspect,
        trial.key,
        TESTED,
        reference=trial.reference,
        checkpoint=trial.checkpoint,
        reordered=reordered,
    )
    return {attempt.name: attempt.log10_p for attempt in verification.attempts}


def null_paths(trials: Iterable[Trial]) -> list[Path]:
    """Tests all suspects of some trials. They do not carry the mark."""
    return _paths((trial, trial.suspects, True) for trial in trials)


def power_paths(trials: Iterable[Trial]) -> list[Path]:
    """Tests all copies of the marked networks of some trials."""
    return _paths((trial, trial.copies, False) for trial in trials)


def _paths(
    cases: Iterable[tuple[Trial, Mapping[str, ArrayModel], bool]],
) -> list[Path]:
    values: dict[tuple[str, str], list[float]] = {}
    for trial, suspects, reordered in cases:
        for name, suspect in suspects.items():
            for attempt, log10_p in attempts_on(trial, suspect, reordered).items():
                values.setdefault((name, attempt), []).append(log10_p)
    return [Path(*names, log10_p) for names, log10_p in values.items()]


def family_wise(paths: Sequence[Path]) -> float:
    """Returns the smallest p-value of several paths, corrected for their number."""
    return min(1.0, len(paths) * min(path.p_value() for path in paths))
