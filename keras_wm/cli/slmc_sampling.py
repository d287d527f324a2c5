"""Runs `keras-wm slmc sample`, and prints means, errors and correlation times."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.observables import shell_correlations
from keras_wm.slmc.samplers.chain import (
    OBSERVABLES,
    SPINS,
    Observable,
    Series,
    run,
)
from keras_wm.slmc.samplers.sampler import Sampler
from keras_wm.slmc.statistics import (
    LEAST_ACCEPTANCE,
    blocked_error,
    estimate,
    predicted_acceptance,
)
from keras_wm.utils.arrays import Floats

NAMES = {
    "m2": "m²",
    "ms2": "staggered m²",
    "energy": "energy per site",
    "density": "electrons per site",
}
CORRELATIONS = "correlations"
# The mean, its error and the autocorrelation time, as texts, by the observable.
Estimates = Mapping[str, tuple[str, str, str]]
_SHELLS: dict[str, Observable] = {
    CORRELATIONS: lambda chain: shell_correlations(chain.spins, chain.model.lattice)
}
_NO_VALUE, _TOO_SHORT = "-", "run too short"
# The error is estimated from the spread of so many independent means at least.
_FEWEST_BLOCKS = 16
# Series that vary less than this are constant up to rounding.
_CONSTANT = 1e-9


def run_sampling(
    sampler: Sampler,
    steps: int,
    thermalisation: int,
    out: Path,
    keep_spins: bool,
    console: Console,
) -> None:
    """Samples, stores all series in a checkpoint, and prints their means and errors.

    Args:
        sampler: Chains of the exact model.
        steps: Number of steps to measure.
        thermalisation: Number of steps to discard before.
        out: Path of the checkpoint. An interrupted run resumes from it.
        keep_spins: Whether to store the spin configurations, too.
        console: Console to print to.
    """
    observables = OBSERVABLES | _SHELLS | (SPINS if keep_spins else {})
    started = time.perf_counter()
    series = run(
        sampler,
        steps,
        thermalisation,
        observables,
        out,
        progress=console.is_terminal,
    )
    seconds = time.perf_counter() - started
    estimates = {name: _mean_error_time(series[name]) for name in NAMES}
    console.print(_observable_table(series, estimates))
    console.print(_correlation_table(series[CORRELATIONS], sampler.model.lattice))
    for warning in _warnings(series, estimates):
        console.print(warning, soft_wrap=True)
    console.print(
        f"{steps} steps of {sampler.chains} chains after {thermalisation} "
        f"thermalisation steps, {seconds:.1f} s; all series are in {out}",
        soft_wrap=True,
    )


def _observable_table(series: Series, estimates: Estimates) -> Table:
    table = Table("", "mean", "error", "autocorrelation time, steps")
    for name, title in NAMES.items():
        table.add_row(title, *estimates[name])
    table.add_row("acceptance", *_mean_error_time(series["acceptance"]))
    if "delta" in series:
        variance = float(series["delta"].var())
        table.add_row("Var(ln W - ln W_eff)", f"{variance:.4g}", "", _NO_VALUE)
        predicted = predicted_acceptance(variance)
        table.add_row("predicted acceptance", f"{predicted:.4f}", "", _NO_VALUE)
    return table


def _warnings(series: Series, estimates: Estimates) -> list[str]:
    """Returns warnings that a reader of the means needs."""
    warnings = []
    if any(time == _TOO_SHORT for _, _, time in estimates.values()):
        warnings.append(
            "The run is too short to estimate some autocorrelation times. Their errors "
            "can be too small, and their means can depend on the initial spins. Take "
            "more steps."
        )
    acceptance = float(series["acceptance"].mean())
    if acceptance < LEAST_ACCEPTANCE:
        warnings.append(
            f"Only {acceptance:.2%} of the proposals were accepted. The chains hardly "
            "move, and no mean can be trusted. Use an effective model of this lattice, "
            "temperature and coupling."
        )
    return warnings


def _correlation_table(values: Floats, lattice: Lattice) -> Table:
    table = Table("squared distance", "sites", "spin correlation", "error")
    for number, shell in enumerate(lattice.shells):
        table.add_row(
            str(shell.squared_distance),
            str(shell.coordination),
            *_mean_error_time(values[..., number])[:2],
        )
    return table


def _mean_error_time(values: Floats) -> tuple[str, str, str]:
    """Returns the mean, its error and the autocorrelation time, as texts."""
    if np.ptp(values) < _CONSTANT:
        return f"{values.mean():.6g}", "0", _NO_VALUE
    try:
        estimated = estimate(values)
    except ValueError:
        return *_mean_and_blocked_error(values), _TOO_SHORT
    return (
        f"{estimated.mean:.6g}",
        f"{estimated.error:.2g}",
        f"{estimated.time:.1f}",
    )


def _mean_and_blocked_error(values: Floats) -> tuple[str, str]:
    steps, chains = values.shape
    if steps * chains < 2:
        return f"{values.mean():.6g}", _NO_VALUE
    error = blocked_error(values, min(steps, ceil(_FEWEST_BLOCKS / chains)))
    return f"{values.mean():.6g}", f"{error:.2g}"
