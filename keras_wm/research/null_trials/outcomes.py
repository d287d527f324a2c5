"""The tests of the p-values of many trials, and one verdict on all paths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

# Thresholds at which p-values are counted.
LEVELS = (0.1, 0.01, 0.001)


@dataclass(frozen=True)
class Figures:
    """The p-values of one path in one trial.

    Attributes:
        corrected: log10 of the reported p-value, for which all choices are counted.
        single: log10 of the p-value of a test that was fixed beforehand, which is not
            corrected and must be uniform; `None` if there is no such test.
    """

    corrected: float
    single: float | None = None


@dataclass(frozen=True)
class NullPath:
    """The p-values of one path in all trials.

    Attributes:
        name: Name of what was tested or chosen.
        factor: The c for which P(p <= alpha) <= c alpha must hold: 1 where everything
            that was chosen is counted.
        corrected: log10 of the reported p-values.
        single: log10 of the p-values that must be uniform; often empty.
    """

    name: str
    factor: float = 1.0
    corrected: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of trials."""
        return len(self.corrected)

    def add(self, figures: Figures) -> None:
        """Adds the p-values of a trial."""
        self.corrected.append(figures.corrected)
        if figures.single is not None:
            self.single.append(figures.single)

    def share_below(self, level: float) -> float:
        """Returns the share of the reported p-values that are at most a level."""
        return float(np.mean(np.array(self.corrected) <= np.log10(level)))

    def excess(self) -> float:
        """Returns the p-value of the hypothesis that P(p <= alpha) <= factor * alpha.

        The numbers of small p-values are tested at each of `LEVELS` (exact binomial
        tests, Bonferroni).
        """
        from scipy.stats import binom

        tails = [
            binom.sf(
                round(self.share_below(level) * self.count) - 1,
                self.count,
                min(1.0, self.factor * level),
            )
            for level in LEVELS
        ]
        return min(1.0, len(LEVELS) * float(min(tails)))

    def uniformity(self) -> float | None:
        """Returns the p-value of a Kolmogorov-Smirnov test, or `None` without data."""
        from scipy.stats import kstest

        if not self.single:
            return None
        return float(kstest(10.0 ** np.array(self.single), "uniform").pvalue)

    def p_value(self) -> float:
        """Returns the p-value of the hypothesis that the path is exact."""
        tests = [p for p in (self.excess(), self.uniformity()) if p is not None]
        return min(1.0, len(tests) * min(tests))


def collect(
    trials: Iterable[Mapping[str, Figures]], factors: Mapping[str, float]
) -> list[NullPath]:
    """Returns the paths of trials.

    Args:
        trials: The p-values of each trial by path.
        factors: The factors of some paths, see `NullPath`.
    """
    paths: dict[str, NullPath] = {}
    for trial in trials:
        for name, figures in trial.items():
            path = NullPath(name, factors.get(name, 1.0))
            paths.setdefault(name, path).add(figures)
    return list(paths.values())


def failing(paths: Sequence[NullPath], level: float) -> list[NullPath]:
    """Returns the paths that are not exact, by Holm's procedure.

    Args:
        paths: All paths.
        level: Probability of a false alarm in any of them.
    """
    rejected: list[NullPath] = []
    ordered = sorted(paths, key=NullPath.p_value)
    for number, path in enumerate(ordered):
        if path.p_value() > level / (len(ordered) - number):
            break
        rejected.append(path)
    return rejected
