"""Runs `keras-wm slmc train` and `keras-wm slmc scale`, and prints their results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_wm.plots import plot_lines
from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.learning.online import Schedule, Stage, learn, learn_from
from keras_wm.slmc.learning.samples import read_samples
from keras_wm.slmc.learning.scaling import Point, power_law
from keras_wm.utils.atomic import atomic_write
from keras_wm.utils.records import RecordFile

_POINTS = "points.jsonl"
# Name of the format of the points, and its version.
_POINTS_FORMAT = {"keras_wm_slmc_points": 1}


def run_training(
    model: DoubleExchange,
    shells: int | None,
    blocks: int,
    heads: int,
    schedule: Schedule,
    seed: int,
    samples: Path | None,
    out: Path,
) -> None:
    """Trains an effective model block by block, and saves it after each block.

    The arguments are the options of `keras-wm slmc train`.

    Raises:
        ValueError: If `out` is not a `.keras` file in an existing folder, or the
            samples are not of this model.
    """
    if out.suffix != ".keras" or not out.parent.is_dir():
        raise ValueError(
            "Expected a file with the suffix .keras, in a folder that exists. "
            f"Received: {str(out)!r}"
        )
    stages: Iterable[Stage]
    if samples is None:
        stages = learn(model, shells, blocks, schedule, seed, heads, progress=True)
    else:
        data = read_samples(samples, model)
        stages = learn_from(model.lattice, data, shells, blocks, schedule, seed, heads)
    console, trained = Console(), []
    for stage in stages:
        trained.append(Point.from_stage(seed, stage))
        with atomic_write(out) as temporary:
            stage.model.save(temporary)
        console.print(
            f"L = {stage.blocks}: error variance {stage.variance:.3g}, fitted to "
            f"{stage.fitted} samples"
        )
    console.print(_points_table(trained))
    console.print(f"The last model is in {out}", soft_wrap=True)


def run_scaling(
    model: DoubleExchange,
    shells: int | None,
    blocks: int,
    heads: int,
    seeds: int,
    schedule: Schedule,
    out: Path,
) -> None:
    """Trains several models of each size, and fits a power law to their errors.

    The arguments are the options of `keras-wm slmc scale`. An interrupted run resumes
    from the points in the folder.

    Raises:
        ValueError: If the folder holds points of other settings.
    """
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    settings = {**asdict(schedule), "blocks": blocks, "heads": heads, "shells": shells}
    header = _POINTS_FORMAT | settings | model.to_dict()
    trainings = RecordFile(out / _POINTS, _read_training, header)
    measured = [point for training in trainings.results for point in training]
    for seed in range(seeds):
        if any(point.seed == seed for point in measured):
            continue
        console.print(f"seed {seed}")
        stages = learn(model, shells, blocks, schedule, seed, heads, progress=True)
        training = [Point.from_stage(seed, stage) for stage in stages]
        trainings.append({"points": [point.to_dict() for point in training]})
        measured += training
    console.print(_points_table(measured))
    for fewest, models in ((0, "all"), (1, "without the linear model"), (2, "L >= 2")):
        if blocks - fewest >= 1 and (blocks - fewest + 1) * seeds >= 3:
            law = power_law(measured, fewest)
            exponent = f"{law.exponent:.2f} ± {law.error:.2f}"
            console.print(f"variance ~ parameters^({exponent}), {models}")
    curves = {
        f"seed {seed}": [(p.parameters, p.variance) for p in measured if p.seed == seed]
        for seed in range(seeds)
    }
    figure = plot_lines(curves, "parameters", "Var(ln W - ln W_eff)", 10, 10)
    figure.savefig(out / "scaling.png")
    console.print(f"The points and a picture are in {out}", soft_wrap=True)


def _read_training(values: dict[str, Any]) -> list[Point]:
    """Reads the points of one training from a line of the records."""
    return [Point.from_dict(point) for point in values["points"]]


def _points_table(trained: Iterable[Point]) -> Table:
    table = Table("seed", "L", "parameters", "variance", "erfc(s / 2)", "acceptance")
    for point in trained:
        numbers = map(str, (point.seed, point.blocks, point.parameters))
        variance = f"{point.variance:.4f} ± {point.variance_error:.4f}"
        acceptance = f"{point.acceptance:.3f} ± {point.acceptance_error:.3f}"
        if np.isnan(point.acceptance):
            acceptance = "-"
        table.add_row(*numbers, variance, f"{point.predicted:.3f}", acceptance)
    return table
