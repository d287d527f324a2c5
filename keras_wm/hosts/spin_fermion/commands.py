"""What `keras-wm slmc` does: sampling, training, and how training scales."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_wm.atomic import replaced_whole
from keras_wm.hosts.spin_fermion.analysis import (
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
    read_series,
    run,
)
from keras_wm.hosts.spin_fermion.double_exchange import DoubleExchange
from keras_wm.hosts.spin_fermion.effective_model import READOUT, on_lattice
from keras_wm.hosts.spin_fermion.heat_bath import HeatBath
from keras_wm.hosts.spin_fermion.lattice import Lattice
from keras_wm.hosts.spin_fermion.learning import (
    Schedule,
    Stage,
    learn,
    learn_from,
    learn_linear,
)
from keras_wm.hosts.spin_fermion.linear_model import LinearModel
from keras_wm.hosts.spin_fermion.metropolis import Metropolis
from keras_wm.hosts.spin_fermion.neural_metropolis import NeuralMetropolis
from keras_wm.hosts.spin_fermion.observables import shell_correlations
from keras_wm.hosts.spin_fermion.sampler import Sampler
from keras_wm.hosts.spin_fermion.scaling import Point, points, power_law
from keras_wm.hosts.spin_fermion.self_learning import SelfLearning
from keras_wm.hosts.spin_fermion.training import Samples
from keras_wm.normal import Floats
from keras_wm.plots import plot_lines

METROPOLIS, LINEAR = "metropolis", "linear"
POINTS = "points.json"
NAMES = {
    "m2": "m²",
    "ms2": "staggered m²",
    "energy": "energy a site, t",
    "density": "electrons a site",
}
CORRELATIONS = "correlations"
_SHELLS: dict[str, Observable] = {
    CORRELATIONS: lambda one: shell_correlations(one.spins, one.model.lattice)
}
_NO_TIME = "-"
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
        couplings = read_description(checkpoint).get("couplings", [0.0])
        linear, spins = LinearModel(model.lattice, np.array(couplings)), None
    else:
        schedule = Schedule(chains=max(chains, _FEWEST_CHAINS), sweeps=sweeps)
        linear, learned = learn_linear(model, None, schedule, seed)
        spins = learned[:chains]
    return SelfLearning(model, HeatBath(linear, sweeps), chains, seed, spins)


def load_model(path: str, model: DoubleExchange) -> keras.Model:
    """An effective model from a file, on the lattice of an exact one."""
    if not Path(path).is_file():
        raise ValueError(
            f"Expected {METROPOLIS!r}, {LINEAR!r} or a file of an effective model. "
            f"Received: {path!r}"
        )
    loaded = keras.saving.load_model(path)
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
    console.print(_measured(series))
    console.print(_correlations(series[CORRELATIONS], sampler.model.lattice))
    console.print(
        f"{steps} steps of {sampler.chains} chains after {thermalisation} to "
        f"thermalise, {seconds:.1f} s; all series in {out}",
        soft_wrap=True,
    )


def run_training(
    model: DoubleExchange,
    shells: int | None,
    blocks: int,
    heads: int,
    schedule: Schedule,
    seed: int,
    samples: Path | None,
    out: Path,
    console: Console,
) -> None:
    """Trains an effective model block by block, and keeps it after each."""
    if out.suffix != ".keras" or not out.parent.is_dir():
        raise ValueError(
            "Expected a file with the suffix .keras, in a folder that is there. "
            f"Received: {str(out)!r}"
        )
    stages: Iterable[Stage] = (
        learn(
            *(model, shells, blocks, schedule, seed, heads),
            progress=console.is_terminal,
        )
        if samples is None
        else learn_from(
            *(model.lattice, read_samples(samples, model), shells, blocks),
            *(schedule, seed, heads),
        )
    )
    found = []
    for stage in stages:
        found += points(seed, [stage])
        with replaced_whole(out) as temporary:
            stage.model.save(temporary)
        console.print(
            f"L = {stage.blocks}: variance {stage.variance:.3g} of what is missed, "
            f"fitted to {stage.fitted} samples"
        )
    console.print(_points_table(found))
    console.print(f"The last model is in {out}", soft_wrap=True)


def run_scaling(
    model: DoubleExchange,
    shells: int | None,
    blocks: int,
    heads: int,
    seeds: int,
    schedule: Schedule,
    out: Path,
    console: Console,
) -> None:
    """Trains several models of every size, and fits a power law to what they miss."""
    out.mkdir(parents=True, exist_ok=True)
    kept = out / POINTS
    asked = {**asdict(schedule), "blocks": blocks, "heads": heads, "shells": shells}
    asked |= model.to_dict()
    found = _points_of(kept, asked)
    for seed in range(seeds):
        if any(one.seed == seed for one in found):
            continue
        console.print(f"seed {seed}")
        stages = learn(
            *(model, shells, blocks, schedule, seed, heads),
            progress=console.is_terminal,
        )
        found += points(seed, stages)
        text = json.dumps({"of": asked, "points": [one.to_dict() for one in found]})
        with replaced_whole(kept) as temporary:
            temporary.write_text(text, "utf-8")
    console.print(_points_table(found))
    for fewest, which in ((0, "all"), (1, "without the linear model"), (2, "L >= 2")):
        if blocks - fewest >= 1 and (blocks - fewest + 1) * seeds >= 3:
            law = power_law(found, fewest)
            console.print(
                f"variance ~ parameters^({law.exponent:.2f} ± {law.error:.2f}), {which}"
            )
    curves = {
        f"seed {seed}": [(p.parameters, p.variance) for p in found if p.seed == seed]
        for seed in range(seeds)
    }
    figure = plot_lines(curves, "parameters", "Var(ln W - ln W_eff)", 10, 10)
    figure.savefig(out / "scaling.png")
    console.print(f"Points and a picture are in {out}", soft_wrap=True)


def _points_of(path: Path, asked: dict[str, Any]) -> list[Point]:
    """What an earlier call found, if it was asked for the same."""
    if not path.exists():
        return []
    kept = json.loads(path.read_text("utf-8"))
    if kept["of"] != asked:
        raise ValueError(
            f"{str(path)!r} holds what was found with other settings. Choose another "
            f"folder.\nExpected: {asked}\nReceived: {kept['of']}"
        )
    return [Point.from_dict(one) for one in kept["points"]]


def read_samples(path: Path, model: DoubleExchange) -> Samples:
    """Configurations that `keras-wm slmc sample --spins` kept.

    Args:
        path: The file.
        model: What they have to be samples of.

    Raises:
        ValueError: If there are none in the file, or they are of another model.
    """
    series = read_series(path)
    if not {"spins", "log_weight"} <= series.keys():
        raise ValueError(
            f"{str(path)!r} holds no spins. Sample with --spins to keep them."
        )
    description, wanted = read_description(path), model.to_dict()
    of = {name: description[name] for name in wanted}
    if of != wanted:
        raise ValueError(
            f"{str(path)!r} holds samples of another model. Expected: {wanted}. "
            f"Received: {of}"
        )
    return Samples.of_chains(series["spins"], series["log_weight"])


def _measured(series: Series) -> Table:
    table = Table("", "mean", "error", "autocorrelation time, steps")
    for name, title in NAMES.items():
        table.add_row(title, *_mean_error_time(series[name]))
    accepted = series["acceptance"]
    table.add_row("acceptance", *_mean_and_blocked_error(accepted), _NO_TIME)
    if "delta" in series:
        variance = float(series["delta"].var())
        table.add_row("Var(ln W - ln W_eff)", f"{variance:.4g}", "", _NO_TIME)
        predicted = predicted_acceptance(variance)
        table.add_row("acceptance it predicts", f"{predicted:.4f}", "", _NO_TIME)
    return table


def _correlations(values: Floats, lattice: Lattice) -> Table:
    table = Table("squared distance", "sites", "spin correlation", "error")
    for number, shell in enumerate(lattice.shells):
        table.add_row(
            str(shell.squared_distance),
            str(shell.coordination),
            *_mean_and_blocked_error(values[..., number]),
        )
    return table


def _mean_error_time(values: Floats) -> tuple[str, str, str]:
    if np.ptp(values) < 1e-9:
        return f"{values.mean():.6g}", "0", _NO_TIME
    try:
        found = estimate(values)
    except ValueError:
        return *_mean_and_blocked_error(values), "too short to tell"
    return f"{found.mean:.6g}", f"{found.error:.2g}", f"{found.time:.1f}"


def _mean_and_blocked_error(values: Floats) -> tuple[str, str]:
    steps, chains = values.shape
    if steps * chains < 2:
        return f"{values.mean():.6g}", _NO_TIME
    error = blocked_error(values, 1 if chains > 1 else min(steps, 10))
    return f"{values.mean():.6g}", f"{error:.2g}"


def _points_table(found: Iterable[Point]) -> Table:
    table = Table("seed", "L", "parameters", "variance", "erfc(s / 2)", "acceptance")
    for one in found:
        measured = (
            "-"
            if np.isnan(one.acceptance)
            else f"{one.acceptance:.3f} ± {one.acceptance_error:.3f}"
        )
        table.add_row(
            str(one.seed),
            str(one.blocks),
            str(one.parameters),
            f"{one.variance:.4f} ± {one.variance_error:.4f}",
            f"{one.predicted:.3f}",
            measured,
        )
    return table
