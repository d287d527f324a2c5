"""The commands that train networks: evaluate, experiment and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_wm.cli import options
from keras_wm.cli.app import silent_import
from keras_wm.cli.inputs import load_key, split_names
from keras_wm.cli.options import argument, count, flag, option
from keras_wm.scheme.capacity import USUAL_BITS


def evaluate(
    model: Annotated[Path, argument("Your marked model file.", "FILE")],
    key: options.Key,
    data: Annotated[str | None, options.DATA] = None,
    baseline: Annotated[
        Path | None, option("The same network trained without a mark.", "FILE")
    ] = None,
    unmarked: Annotated[
        list[Path] | None,
        option("Unmarked network, attacked to count false alarms. Repeatable.", "FILE"),
    ] = None,
    families: options.Families = None,
    strengths: Annotated[
        int | None, count("Number of strengths of each attack (default: all).")
    ] = None,
    seeds: Annotated[int, count("Number of repetitions of each attack.")] = 1,
    tolerance: Annotated[
        float,
        option("Largest increase of the test error at which an attack still counts."),
    ] = 0.02,
    out: options.Folder = Path("keras_wm_evaluation"),
) -> None:
    """Attack your marked model, and report how well the mark meets its requirements.

    Without --data, attacks that train are skipped.
    """
    with silent_import():
        from keras_wm.cli.evaluate_output import run_evaluation

    run_evaluation(
        model,
        load_key(key),
        data,
        out,
        baseline=baseline,
        unmarked=unmarked or (),
        families=None if families is None else split_names(families),
        strengths=strengths,
        seeds=seeds,
        tolerance=tolerance,
    )


def experiment(
    name: Annotated[
        str, argument("Experiment name, or `all`, `robustness` or `list`.", "NAME")
    ],
    data: Annotated[str, options.DATA] = "digits",
    epochs: Annotated[
        int | None, count("Epochs of training (default: 200, on digits 12).")
    ] = None,
    seeds: Annotated[int, count("Number of networks of each kind.")] = 5,
    n: options.BlocksPerGroup = 1,
    k: options.Widening = 4,
    group: Annotated[int, option("Group of convolutions that is marked.", "N")] = 2,
    bits: Annotated[
        int | None,
        count("Number of bits (default: 64 for `default` and `anchored`, else 256)."),
    ] = None,
    marks: Annotated[
        str, option("Marks to compare: also `anchored`, with inputs.", "NAMES")
    ] = "direct,diff,random,default",
    weight_decay: Annotated[
        float, option("Weight decay. The papers state 5e-4; their code has none.")
    ] = 5e-4,
    optimizer: Annotated[
        str, option("Optimizer of training from scratch: papers or adam.", "NAME")
    ] = "papers",
    decoupled: Annotated[
        bool, flag("--decoupled", "Let BitErrorRate embed the default mark.")
    ] = False,
    families: options.Families = None,
    workers: Annotated[
        int | None,
        count("Number of processes (default: one per core, at most 4; with a GPU 1)."),
    ] = None,
    out: options.Folder = Path("keras_wm_experiments"),
) -> None:
    """Run an experiment of the papers or on robustness.

    An interrupted experiment resumes from the results in the output folder.
    The experiments of the papers ignore --families.
    """
    with silent_import():
        from keras_wm.research.experiments import EXPERIMENTS, Settings, run_experiment
        from keras_wm.research.experiments.worker import default_workers

    if name == "list":
        for listed in EXPERIMENTS.values():
            typer.echo(f"{listed.name:20} {listed.title}")
        return
    settings = Settings(
        data,
        epochs,
        seeds,
        n,
        k,
        group=group,
        bits=bits,
        marks=split_names(marks),
        weight_decay=weight_decay,
        optimizer=optimizer,
        decoupled=decoupled,
        families=None if families is None else split_names(families),
    )
    run_experiment(name, settings, out, workers=workers or default_workers())


def demo(
    data: Annotated[str, options.DATA] = "digits",
    epochs: Annotated[int, count("Epochs of training.")] = 20,
    bits: Annotated[int, count("Number of bits of the message.")] = USUAL_BITS,
    layer: Annotated[
        str, option("Convolution to mark.", "NAME")
    ] = "conv3_block1_conv2",
    n: options.BlocksPerGroup = 1,
    k: options.Widening = 4,
    seed: Annotated[
        int, option("Random seed of the weights and the data order.", "N")
    ] = 0,
    out: options.Folder = Path("keras_wm_demo"),
) -> None:
    """Mark a wide residual network while it trains, publish it and prove the mark."""
    from rich.console import Console

    with silent_import():
        from keras_wm.research.demo import DemoSettings, run_demo

    settings = DemoSettings(data, epochs, bits, layer, n, k, seed)
    run_demo(settings, out, Console())
