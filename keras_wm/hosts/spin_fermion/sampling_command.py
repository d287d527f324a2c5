"""What `keras-wm slmc sample` does: chains by the name of what proposes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_wm.hosts.spin_fermion.analysis import (
    LEAST_ACCEPTANCE,
    blocked_error,
    estimate,
    predicted_acceptance,
)
from keras_wm.hosts.spin_fermion.chain import (
    OBSERVABLES,
    SPINS,
    Observable,
    Series,
    read_description,
    run,
)
from keras_wm.hosts.spin_fermion.double_exchange import DoubleExchange
from keras_wm.hosts.spin_fermion.effective_model import READOUT, on_lattice
from keras_wm.hosts.spin_fermion.heat_bath import HeatBath
from keras_wm.hosts.spin_fermion.lattice import Lattice
from keras_wm.hosts.spin_fermion.learning import Schedule, learn_linear
from keras_wm.hosts.spin_fermion.linear_model import LinearModel
from keras_wm.hosts.spin_fermion.metropolis import Metropolis
from keras_wm.hosts.spin_fermion.neural_metropolis import NeuralMetropolis
from keras_wm.hosts.spin_fermion.observables import shell_correlations
from keras_wm.hosts.spin_fermion.sampler import Sampler
from keras_wm.hosts.spin_fermion.self_learning import SelfLearning
from keras_wm.normal import Floats

METROPOLIS, LINEAR = "metropolis", "linear"
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
# To learn a linear model by.
_FEWEST_CHAINS = 64


def sampler_by(
    by: str,
    model: DoubleExchange,
    chains: int,
    sweeps: int,
    seed: int,
    checkpoint: Path | None = None,
) -> Sampler:
    """Chains of an exact model, by the name of what proposes.

    Args:
        by: `"metropolis"`; `"linear"`, a heat bath of a linear model of all shells that
            is learned first; or a file of an effective model.
        model: What gives a configuration its weight.
        chains: How many chains.
        sweeps: How many sweeps make a proposal.
        seed: Of all that is random.
        checkpoint: Where the chains are kept. Of one that is there, a linear model is
            taken over.

    Raises:
        ValueError: If the file is none of an effective model.
    """
    if by == METROPOLIS:
        return Metropolis(model, chains, seed)
    if by != LINEAR:
        proposal = NeuralMetropolis(load_model(by, model), sweeps)
        return SelfLearning(model, proposal, chains, seed)
    if checkpoint is not None and checkpoint.exists():
        linear, spins = _kept_linear_model(checkpoint, model.lattice), None
    else:
        schedule = Schedule(chains=max(chains, _FEWEST_CHAINS), sweeps=sweeps)
        linear, learned = learn_linear(model, None, schedule, seed)
        spins = learned[:chains]
    return SelfLearning(model, HeatBath(linear, sweeps), chains, seed, spins)


def _kept_linear_model(checkpoint: Path, lattice: Lattice) -> LinearModel:
    """The linear model by which the chains of a checkpoint propose.

    Of other chains it is any, for to go on with them is refused when they run.
    """
    told = read_description(checkpoint)
    couplings = np.array(told.get("couplings", [0.0]))
    return LinearModel(
        lattice, couplings[: len(lattice.shells)], told.get("offset", 0.0)
    )


def load_model(path: str, model: DoubleExchange) -> keras.Model:
    """An effective model from a file, on the lattice of an exact one."""
    if not Path(path).is_file():
        raise ValueError(
            f"Expected {METROPOLIS!r}, {LINEAR!r} or a file of an effective model. "
            f"Received: {path!r}"
        )
    try:
        loaded = keras.saving.load_model(path)
    # Keras raises whatever its parts do of a damaged file.
    except (ValueError, KeyError, TypeError, OSError, BadZipFile) as error:
        raise ValueError(
            f"{path!r} is damaged, or not a model that Keras can load: {error}"
        ) from error
    if READOUT not in {layer.name for layer in loaded.layers}:
        raise ValueError(
            f"{path!r} is no effective model: it has no layer {READOUT!r}. Make one "
            "with `keras-wm slmc train`."
        )
    return on_lattice(loaded, model.lattice)


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
