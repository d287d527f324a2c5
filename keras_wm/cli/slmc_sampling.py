"""What `keras-wm slmc sample` does: chains by the name of what proposes."""

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
    "energy": "energy a site",
    "density": "electrons a site",
}
CORRELATIONS = "correlations"
_SHELLS: dict[str, Observable] = {
    CORRELATIONS: lambda one: shell_correlations(one.spins, one.model.lattice)
}
_NO_TIME, _TOO_SHORT = "-", "too short to tell"
# Independent means that tell their own spread.
_FEWEST_BLOCKS = 16


def run_sampling(
    sampler: Sampler,
    steps: int,
    thermalisation: int,
    out: Path,
    keep_spins: bool,
    console: Console,
) -> None:
    """Samples, keeps a checkpoint with all series, and shows what they tell."""
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
    told = {name: _mean_error_time(series[name]) for name in NAMES}
    console.print(_measured(series, told))
    console.print(_correlations(series[CORRELATIONS], sampler.model.lattice))
    for caution in _cautions(series, told):
        console.print(caution, soft_wrap=True)
    console.print(
        f"{steps} steps of {sampler.chains} chains after {thermalisation} to "
        f"thermalise, {seconds:.1f} s; all series in {out}",
        soft_wrap=True,
    )


def _measured(series: Series, told: Mapping[str, tuple[str, str, str]]) -> Table:
    table = Table("", "mean", "error", "autocorrelation time, steps")
    for name, title in NAMES.items():
        table.add_row(title, *told[name])
    table.add_row("acceptance", *_mean_error_time(series["acceptance"]))
    if "delta" in series:
        variance = float(series["delta"].var())
        table.add_row("Var(ln W - ln W_eff)", f"{variance:.4g}", "", _NO_TIME)
        predicted = predicted_acceptance(variance)
        table.add_row("acceptance it predicts", f"{predicted:.4f}", "", _NO_TIME)
    return table


def _cautions(series: Series, told: Mapping[str, tuple[str, str, str]]) -> list[str]:
    """What a reader of the means has to know."""
    cautions = []
    if any(time == _TOO_SHORT for _, _, time in told.values()):
        cautions.append(
            "Too short to tell an autocorrelation time: there the error may be too "
            "small, and the mean of where the chains began. Take more steps."
        )
    accepted = float(series["acceptance"].mean())
    if accepted < LEAST_ACCEPTANCE:
        cautions.append(
            f"Only {accepted:.2%} was accepted, so that the chains hardly move and no "
            "mean can be trusted. Take an effective model of this lattice, temperature "
            "and coupling."
        )
    return cautions


def _correlations(values: Floats, lattice: Lattice) -> Table:
    table = Table("squared distance", "sites", "spin correlation", "error")
    for number, shell in enumerate(lattice.shells):
        table.add_row(
            str(shell.squared_distance),
            str(shell.coordination),
            *_mean_error_time(values[..., number])[:2],
        )
    return table


def _mean_error_time(values: Floats) -> tuple[str, str, str]:
    if np.ptp(values) < 1e-9:
        return f"{values.mean():.6g}", "0", _NO_TIME
    try:
        found = estimate(values)
    except ValueError:
        return *_mean_and_blocked_error(values), _TOO_SHORT
    return f"{found.mean:.6g}", f"{found.error:.2g}", f"{found.time:.1f}"


def _mean_and_blocked_error(values: Floats) -> tuple[str, str]:
    steps, chains = values.shape
    if steps * chains < 2:
        return f"{values.mean():.6g}", _NO_TIME
    error = blocked_error(values, min(steps, ceil(_FEWEST_BLOCKS / chains)))
    return f"{values.mean():.6g}", f"{error:.2g}"
