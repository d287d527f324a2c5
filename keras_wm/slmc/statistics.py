r"""What chains tell: means with honest errors, autocorrelation times, acceptance.

Series have the shape `(steps, chains)`; chains are independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from keras_wm.utils.arrays import Floats

# Sokal's window: where the noise of later lags outweighs what they add.
_WINDOW = 5.0
# Below so many autocorrelation times a chain does not tell its own.
FEWEST_TIMES = 50
# Of proposals: with fewer, chains hardly leave where they began.
LEAST_ACCEPTANCE = 0.02


@dataclass(frozen=True)
class Estimate:
    """A mean and what is known of it.

    Attributes:
        mean: Over all steps and chains.
        error: Its standard error.
        time: The integrated autocorrelation time, in steps, which the error allows for.
        time_error: Its standard error.
    """

    mean: float
    error: float
    time: float
    time_error: float

    def __str__(self) -> str:
        return f"{self.mean:.5g} ± {self.error:.2g}"


def autocorrelation_time(series: ArrayLike) -> float:
    r"""The integrated autocorrelation time \(1 + 2 \sum_t \rho(t)\), in steps.

    As many steps make one independent sample. It is 1 where all are independent, and no
    less where they alternate, which is not counted as a gain. The sum ends at the first
    lag that is five times as long as the time found up to there (Sokal 1997).

    Args:
        series: Shape `(steps,)` or `(steps, chains)`. The autocovariances of all chains
            are averaged before they are summed up.

    Raises:
        ValueError: If there are fewer than 50 times as many steps, which underestimates
            the time.
    """
    array = _checked(series)
    correlation = _autocovariance(array)
    if correlation[0] <= 0:
        # Nothing ever changes: one sample, however often it is looked at.
        raise ValueError(
            "Expected a series that changes. Received one of a single value, which has "
            "no autocorrelation time."
        )
    times = 2 * np.cumsum(correlation / correlation[0]) - 1
    far_enough = np.arange(len(times)) >= _WINDOW * times
    time = max(1.0, float(times[far_enough.argmax() if far_enough.any() else -1]))
    if len(array) < FEWEST_TIMES * time:
        raise ValueError(
            f"Expected a chain of {FEWEST_TIMES} autocorrelation times or more. "
            f"Received {len(array)} steps, whose time is about {time:.3g}. "
            "Sample longer."
        )
    return time


def estimate(series: ArrayLike) -> Estimate:
    """The mean of a series, with an error that allows for its autocorrelation.

    Args:
        series: Shape `(steps,)` or `(steps, chains)`.

    Raises:
        ValueError: If it is too short: see `autocorrelation_time`.
    """
    array = _checked(series)
    time = autocorrelation_time(array)
    error = sqrt(float(array.var()) * time / array.size)
    # Madras & Sokal 1988, of a window that is five times as long.
    time_error = time * sqrt(2 * (2 * _WINDOW * time + 1) / array.size)
    return Estimate(float(array.mean()), error, time, time_error)


def blocked_error(series: ArrayLike, blocks: int) -> float:
    """The standard error of the mean, from the spread of the means of long blocks.

    Args:
        series: Shape `(steps,)` or `(steps, chains)`.
        blocks: Into how many each chain is cut. Blocks have to be much longer than the
            autocorrelation time; what is left over at the start is not used.

    Raises:
        ValueError: If there are fewer than two blocks in all, or more than steps.
    """
    array = _checked(series)
    steps, chains = array.shape
    if not 1 <= blocks <= steps or blocks * chains < 2:
        raise ValueError(
            f"Expected 1 to {steps} blocks a chain, and two or more in all. "
            f"Received: blocks={blocks!r} of {chains} chains"
        )
    length = steps // blocks
    kept = array[steps - length * blocks :].reshape(blocks, length, chains)
    means = kept.mean(axis=1).ravel()
    return float(means.std(ddof=1) / sqrt(len(means)))


def predicted_acceptance(variance: float) -> float:
    r"""\(\mathrm{erfc}(s / 2)\), the acceptance of proposals that decorrelate.

    Where \(\delta = \ln W - \ln W_\mathrm{eff}\) is normal with the variance s² under
    W, \(\delta' - \delta\) is normal with the mean -s² and the variance 2 s². A wide
    \(\delta\) is rarely normal, and then less is accepted.

    Args:
        variance: s².

    Raises:
        ValueError: If it is negative.
    """
    from scipy.special import erfc

    if not variance >= 0:
        raise ValueError(f"Expected a variance. Received: variance={variance!r}")
    return float(erfc(sqrt(variance) / 2))


def _checked(series: ArrayLike) -> Floats:
    array = np.asarray(series, np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            "Expected finite numbers of the shape (steps,) or (steps, chains). "
            f"Received: an array of the shape {np.shape(series)}"
        )
    return array


def _autocovariance(array: Floats) -> Floats:
    """The autocovariance at every lag, the mean over chains."""
    from scipy.fft import irfft, next_fast_len, rfft

    steps = len(array)
    # About the mean of all: about its own, a short chain would hide slow changes.
    centred = array - array.mean()
    length = next_fast_len(2 * steps, real=True)
    spectrum = np.square(np.abs(rfft(centred, length, axis=0))).mean(axis=1)
    sums: Floats = irfft(spectrum, length)[:steps]
    return sums / np.arange(steps, 0, -1)
