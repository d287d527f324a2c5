r"""Statistics of Markov chains: errors of means, autocorrelation times, acceptance.

A series has the shape `(steps, chains)`. Chains are independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arrays import Floats

# The sum over lags ends at this many autocorrelation times (Sokal 1997): later lags
# contribute more noise than signal.
_WINDOW = 5.0
# A shorter chain underestimates its own autocorrelation time.
MIN_AUTOCORRELATION_TIMES = 50
# With a lower acceptance rate, chains hardly leave their first configuration.
MIN_ACCEPTANCE = 0.02


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error.

    Attributes:
        mean: Mean over all steps and chains.
        error: Standard error of the mean, including autocorrelation.
        time: Integrated autocorrelation time, in steps.
        time_error: Standard error of the autocorrelation time.
    """

    mean: float
    error: float
    time: float
    time_error: float

    def __str__(self) -> str:
        return f"{self.mean:.5g} ± {self.error:.2g}"


def autocorrelation_time(series: ArrayLike) -> float:
    r"""Estimates the integrated autocorrelation time, in steps.

    \[ \tau = 1 + 2 \sum_{t \ge 1} \rho(t) \]

    is the number of steps per independent sample: 1 if all steps are independent. An
    anticorrelated series, for which the sum is below 1, also gives 1. The sum ends at
    the first lag that is at least five times the estimate up to there (Sokal 1997).

    Args:
        series: Shape `(steps,)` or `(steps, chains)`. The autocovariance is averaged
            over the chains before the sum.

    Raises:
        ValueError: If the series has fewer than 50 autocorrelation times, for which the
            estimate would be too small, or is constant.
    """
    array = _checked(series)
    autocovariance = _autocovariance(array)
    if autocovariance[0] <= 0:
        raise ValueError(
            "Expected a series that changes. Received a constant series, which has no "
            "autocorrelation time."
        )
    times = 2 * np.cumsum(autocovariance / autocovariance[0]) - 1
    far_enough = np.arange(len(times)) >= _WINDOW * times
    time = max(1.0, float(times[far_enough.argmax() if far_enough.any() else -1]))
    if len(array) < MIN_AUTOCORRELATION_TIMES * time:
        raise ValueError(
            f"Expected a chain of {MIN_AUTOCORRELATION_TIMES} autocorrelation times or "
            f"more. Received {len(array)} steps with an autocorrelation time of about "
            f"{time:.3g}. Sample longer."
        )
    return time


def estimate(series: ArrayLike) -> Estimate:
    r"""Estimates the mean of a series and its error, including autocorrelation.

    The variance of the mean is \(\mathrm{Var}(x) \tau / n\) for n values in all chains.
    The error of \(\tau\) is that of Madras & Sokal (1988) for this window.

    Args:
        series: Shape `(steps,)` or `(steps, chains)`.

    Raises:
        ValueError: If the series is too short; see `autocorrelation_time`.
    """
    array = _checked(series)
    time = autocorrelation_time(array)
    error = sqrt(float(array.var()) * time / array.size)
    time_error = time * sqrt(2 * (2 * _WINDOW * time + 1) / array.size)
    return Estimate(float(array.mean()), error, time, time_error)


def blocked_error(series: ArrayLike, blocks: int) -> float:
    """Estimates the standard error of the mean from the spread of block means.

    Args:
        series: Shape `(steps,)` or `(steps, chains)`.
        blocks: Number of blocks per chain. A block has to be much longer than the
            autocorrelation time. Steps that do not fill a block are left out at the
            start.

    Raises:
        ValueError: If there are fewer than two blocks in total, or more blocks than
            steps.
    """
    array = _checked(series)
    steps, chains = array.shape
    if not 1 <= blocks <= steps or blocks * chains < 2:
        raise ValueError(
            f"Expected 1 to {steps} blocks per chain, and at least two blocks in "
            f"total. Received: blocks={blocks!r} and {chains} chains"
        )
    length = steps // blocks
    blocked = array[steps - length * blocks :].reshape(blocks, length, chains)
    means = blocked.mean(axis=1).ravel()
    return float(means.std(ddof=1) / sqrt(len(means)))


def predicted_acceptance(variance: float) -> float:
    r"""Predicts the acceptance rate of independent proposals, erfc(s / 2).

    Let \(\delta = \ln W - \ln W_\mathrm{eff}\) be normal under W with variance s². For
    a proposal drawn from W_eff, independent of the current configuration,
    \(\delta' - \delta\) is normal with mean -s² and variance 2 s², and the mean of
    \(\min(1, e^{\delta' - \delta})\) is \(\mathrm{erfc}(s / 2)\). For large s²,
    \(\delta\) is rarely normal, and the acceptance rate is lower.

    Args:
        variance: Variance s² of \(\delta\).

    Raises:
        ValueError: If the variance is negative.
    """
    from scipy.special import erfc

    if not variance >= 0:
        raise ValueError(
            f"Expected a variance of 0 or more. Received: variance={variance!r}"
        )
    return float(erfc(sqrt(variance) / 2))


def _checked(series: ArrayLike) -> Floats:
    array = np.asarray(series, np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            "Expected finite numbers of shape (steps,) or (steps, chains). "
            f"Received: an array of shape {np.shape(series)}"
        )
    return array


def _autocovariance(array: Floats) -> Floats:
    """Computes the autocovariance at every lag, averaged over the chains."""
    from scipy.fft import irfft, next_fast_len, rfft

    steps = len(array)
    # Relative to the mean of all chains: relative to its own mean, a short chain would
    # hide slow changes.
    centred = array - array.mean()
    length = next_fast_len(2 * steps, real=True)
    spectrum = np.square(np.abs(rfft(centred, length, axis=0))).mean(axis=1)
    sums: Floats = irfft(spectrum, length)[:steps]
    return sums / np.arange(steps, 0, -1)
