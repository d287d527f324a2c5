"""Errors and autocorrelation times of series for which they are known."""

import numpy as np
import pytest
from scipy.signal import lfilter

from keras_wm.slmc.statistics import (
    autocorrelation_time,
    blocked_error,
    estimate,
    predicted_acceptance,
)


def autoregressive(memory, steps, chains, seed):
    """Series x' = a x + noise of variance 1, with tau = (1 + a) / (1 - a)."""
    noise = np.random.default_rng(seed).normal(size=(steps, chains))
    noise[1:] *= np.sqrt(1 - memory**2)
    return lfilter([1], [1, -memory], noise, axis=0)


@pytest.mark.parametrize(
    ("memory", "time"), [(0.9, 19.0), (0.5, 3.0), (0.0, 1.0), (-0.5, 1.0)]
)
def test_an_autoregressive_series_has_the_known_autocorrelation_time(memory, time):
    series = autoregressive(memory, 40_000, 4, seed=1)
    assert autocorrelation_time(series) == pytest.approx(time, rel=0.1)
    assert autocorrelation_time(series[:, 0]) == pytest.approx(time, rel=0.2)


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_68_percent_of_the_means_are_within_one_standard_error(memory):
    """Checks 400 series within 4 standard deviations, plus 0.03 for biased errors."""
    series = autoregressive(memory, 3000, 400, seed=2)
    estimates = [estimate(chain) for chain in series.T]
    within = np.mean([abs(result.mean) < result.error for result in estimates])
    assert abs(within - 0.683) < 4 * np.sqrt(0.683 * 0.317 / 400) + 0.03
    blocked = np.mean([blocked_error(chain, 10) for chain in series.T])
    known = np.sqrt((1 + memory) / (1 - memory) / 3000)
    assert blocked == pytest.approx(known, rel=0.06)


def test_each_chain_is_a_block():
    series = autoregressive(0.5, 500, 6, seed=3)
    means = series.mean(axis=0)
    expected = means.std(ddof=1) / np.sqrt(6)
    assert blocked_error(series, 1) == pytest.approx(expected)


def test_chains_that_are_stuck_apart_are_too_short():
    stuck = np.random.default_rng(4).normal(size=(200, 8))
    stuck += 5 * np.arange(8)
    with pytest.raises(ValueError, match="Sample longer"):
        estimate(stuck)


def test_a_chain_below_50_autocorrelation_times_raises_an_error():
    series = autoregressive(0.9, 800, 1, seed=5)
    with pytest.raises(ValueError, match=r"50 autocorrelation times.*800 steps"):
        autocorrelation_time(series)
    assert autocorrelation_time(autoregressive(0.9, 2000, 1, seed=5)) > 10


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (np.ones(100), "series that changes"),
        ([], r"shape \(0,\)"),
        ([1.0, np.nan], "finite numbers"),
        (np.ones((2, 2, 2)), r"shape \(2, 2, 2\)"),
    ],
)
def test_invalid_series_raise_an_error(series, message):
    with pytest.raises(ValueError, match=message):
        autocorrelation_time(series)


@pytest.mark.parametrize(("blocks", "chains"), [(0, 2), (11, 2), (1, 1)])
def test_an_invalid_number_of_blocks_raises_an_error(blocks, chains):
    with pytest.raises(ValueError, match=r"1 to 10 blocks.*Received: blocks"):
        blocked_error(np.arange(10.0 * chains).reshape(10, chains), blocks)


@pytest.mark.parametrize("spread", [0.1, 0.8, 2.0])
def test_the_predicted_acceptance_is_exact_for_normal_delta(spread):
    """Delta is N(0, s²) under W, and N(-s², s²) under the effective model."""
    rng = np.random.default_rng(6)
    current = spread * rng.normal(size=400_000)
    proposed = spread * rng.normal(size=400_000) - spread**2
    accepted = np.minimum(1, np.exp(proposed - current)).mean()
    assert predicted_acceptance(spread**2) == pytest.approx(accepted, abs=0.003)


@pytest.mark.parametrize("variance", [-0.1, np.nan])
def test_a_negative_variance_raises_an_error(variance):
    with pytest.raises(ValueError, match="Expected a variance"):
        predicted_acceptance(variance)
