"""Runs `keras-wm slmc sample`; prints means, errors and autocorrelation times."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.learning.online import Schedule, learn_linear
from keras_wm.slmc.models.effective_model import load_effective_model
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.slmc.observables import shell_correlations
from keras_wm.slmc.samplers.chain import (
    OBSERVABLES,
    SPINS,
    Observable,
    Series,
    read_description,
    run,
)
from keras_wm.slmc.samplers.heat_bath import HeatBath
from keras_wm.slmc.samplers.metropolis import Metropolis
from keras_wm.slmc.samplers.neural_metropolis import NeuralMetropolis
from keras_wm.slmc.samplers.sampler import Sampler
from keras_wm.slmc.samplers.self_learning import SelfLearning
from keras_wm.slmc.statistics import (
    MIN_ACCEPTANCE,
    blocked_error,
    estimate,
    predicted_acceptance,
)
from keras_wm.utils.arrays import Floats

METROPOLIS, LINEAR = "metropolis", "linear"
# Fewest chains that a linear model is learned with.
_MIN_CHAINS = 64
_TITLES = {
    "m2": "m²",
    "ms2": "staggered m²",
    "energy": "energy per site",
    "density": "electrons per site",
}
_CORRELATIONS = "correlations"
# The mean, its error and the autocorrelation time, as texts, by the observable.
Estimates = Mapping[str, tuple[str, str, str]]
_SHELLS: dict[str, Observable] = {
    _CORRELATIONS: lambda chain: shell_correlations(chain.spins, chain.model.lattice)
}
_NO_VALUE, _TOO_SHORT = "-", "run too short"
# Fewest independent means that the error is estimated from.
_MIN_BLOCKS = 16
# Series that vary less than this are constant up to rounding.
_CONSTANT = 1e-9


def make_sampler(
    name: str,
    model: DoubleExchange,
    chains: int,
    sweeps: int,
    seed: int,
    checkpoint: Path,
) -> Sampler:
    """Makes a sampler by the name of its algorithm or effective model.

    Args:
        name: `"metropolis"` for plain Metropolis; `"linear"` for self-learning chains
            with a linear model of all shells, which is learned first; or the file of an
            effective model for self-learning chains with that model.
        model: Exact model.
        chains: Number of chains.
        sweeps: Number of sweeps per proposal.
        seed: Random seed.
        checkpoint: Checkpoint of the run. If it exists, its linear model is used.

    Raises:
        ValueError: If the name is unknown, or the file is not an effective model.
    """
    if name == METROPOLIS:
        return Metropolis(model, chains, seed)
    if name != LINEAR:
        if not Path(name).is_file():
            raise ValueError(
                f"Expected {METROPOLIS!r}, {LINEAR!r} or a file of an effective model. "
                f"Received: {name!r}"
            )
        effective = load_effective_model(name, model.lattice)
        return SelfLearning(model, NeuralMetropolis(effective, sweeps), chains, seed)
    if checkpoint.exists():
        linear, spins = _linear_model_of(checkpoint, model.lattice), None
    else:
        schedule = Schedule(chains=max(chains, _MIN_CHAINS), sweeps=sweeps)
        linear, learned = learn_linear(model, None, schedule, seed)
        spins = learned[:chains]
    return SelfLearning(model, HeatBath(linear, sweeps), chains, seed, spins)


def _linear_model_of(checkpoint: Path, lattice: Lattice) -> LinearModel:
    """Returns the linear model of a checkpoint.

    For a checkpoint of other chains the model is arbitrary: `run` refuses it anyway.
    """
    description = read_description(checkpoint)
    couplings = np.array(description.get("couplings", [0.0]))
    return LinearModel(
        lattice, couplings[: len(lattice.shells)], description.get("offset", 0.0)
    )


def run_sampling(
    sampler: Sampler,
    steps: int,
    thermalisation: int,
    out: Path,
    keep_spins: bool,
) -> None:
    """Samples, stores all series in a checkpoint, and prints their means and errors.

    The arguments are options of `keras-wm slmc sample`. An interrupted run resumes from
    the checkpoint `out`.
    """
    console = Console()
    observables = OBSERVABLES | _SHELLS | (SPINS if keep_spins else {})
    started = time.perf_counter()
    series = run(sampler, steps, thermalisation, observables, out, progress=True)
    seconds = time.perf_counter() - started
    estimates = {name: _mean_error_time(series[name]) for name in _TITLES}
    console.print(_observable_table(series, estimates))
    console.print(_correlation_table(series[_CORRELATIONS], sampler.model.lattice))
    for warning in _warnings(series, estimates):
        console.print(warning, soft_wrap=True)
    console.print(
        f"{steps} steps of {sampler.chains} chains after {thermalisation} "
        f"thermalisation steps, {seconds:.1f} s; all series are in {out}",
        soft_wrap=True,
    )


def _observable_table(series: Series, estimates: Estimates) -> Table:
    table = Table("", "mean", "error", "autocorrelation time, steps")
    for name, title in _TITLES.items():
        table.add_row(title, *estimates[name])
    table.add_row("acceptance", *_mean_error_time(series["acceptance"]))
    if "delta" in series:
        variance = float(series["delta"].var())
        table.add_row("Var(ln W - ln W_eff)", f"{variance:.4g}", "", _NO_VALUE)
        predicted = predicted_acceptance(variance)
        table.add_row("predicted acceptance", f"{predicted:.4f}", "", _NO_VALUE)
    return table


def _warnings(series: Series, estimates: Estimates) -> Iterator[str]:
    """Yields warnings that a reader of the means needs."""
    if any(time == _TOO_SHORT for _, _, time in estimates.values()):
        yield (
            "The run is too short to estimate some autocorrelation times. Their errors "
            "can be too small, and their means can depend on the initial spins. Take "
            "more steps."
        )
    acceptance = float(series["acceptance"].mean())
    if acceptance < MIN_ACCEPTANCE:
        yield (
            f"Only {acceptance:.2%} of the proposals were accepted. The chains hardly "
            "move, and no mean can be trusted. Use an effective model of this lattice, "
            "temperature and coupling."
        )


def _correlation_table(values: Floats, lattice: Lattice) -> Table:
    table = Table("squared distance", "sites", "spin correlation", "error")
    for number, shell in enumerate(lattice.shells):
        mean, error, _ = _mean_error_time(values[..., number])
        table.add_row(str(shell.squared_distance), str(shell.coordination), mean, error)
    return table


def _mean_error_time(values: Floats) -> tuple[str, str, str]:
    """Returns the mean, its error and the autocorrelation time, as texts."""
    mean = f"{values.mean():.6g}"
    if np.ptp(values) < _CONSTANT:
        return mean, "0", _NO_VALUE
    try:
        result = estimate(values)
    except ValueError:
        steps, chains = values.shape
        error = blocked_error(values, min(steps, ceil(_MIN_BLOCKS / chains)))
        return mean, f"{error:.2g}", _TOO_SHORT
    return mean, f"{result.error:.2g}", f"{result.time:.1f}"
