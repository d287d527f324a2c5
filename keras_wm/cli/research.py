"""The commands that train networks: the demo, the experiments, the evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_wm.cli.app import KeyOption, app, silent_import
from keras_wm.cli.inputs import load_key
from keras_wm.scheme.capacity import USUAL_BITS


@app.command()
def demo(
    data: Annotated[
        str, typer.Option(help="digits, cifar10 or an .npz file.")
    ] = "digits",
    epochs: Annotated[int, typer.Option(min=1, help="How long to train.")] = 20,
    bits: Annotated[
        int, typer.Option(min=1, help="The length of the message.")
    ] = USUAL_BITS,
    layer: Annotated[
        str, typer.Option(help="The convolution to mark.")
    ] = "conv3_block1_conv2",
    n: Annotated[int, typer.Option(min=1, help="Blocks in a group.")] = 1,
    k: Annotated[int, typer.Option(min=1, help="The widening factor.")] = 4,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path(
        "keras_wm_demo"
    ),
) -> None:
    """Mark a wide residual network while it trains, publish it and prove the mark."""
    from rich.console import Console

    with silent_import():
        from keras_wm.research.demo import DemoSettings, run_demo

    settings = DemoSettings(data, epochs, bits, layer, n, k, seed)
    run_demo(settings, out, Console())


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="Its name, all, robustness or list.")],
    data: Annotated[
        str, typer.Option(help="digits, cifar10 or an .npz file.")
    ] = "digits",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="How long to train; 200, and 12 on the digits."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many networks of a kind.")] = 5,
    n: Annotated[int, typer.Option(min=1, help="Blocks in a group.")] = 1,
    k: Annotated[int, typer.Option(min=1, help="The widening factor.")] = 4,
    group: Annotated[int, typer.Option(help="The group that is marked.")] = 2,
    bits: Annotated[
        int | None,
        typer.Option(
            min=1, help="The length of the message; 256, and 64 of the default mark."
        ),
    ] = None,
    marks: Annotated[
        str, typer.Option(help="Which marks to compare, with commas between.")
    ] = "direct,diff,random,default",
    weight_decay: Annotated[
        float, typer.Option(help="The papers write 5e-4; their code has none.")
    ] = 5e-4,
    families: Annotated[
        str | None,
        typer.Option(help="Families of attacks that resistance tries; else all."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; as cores, up to 4, or 1 with a GPU."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the results go.")] = Path(
        "keras_wm_experiments"
    ),
) -> None:
    """Do an experiment of the papers or on robustness; goes on where it stopped."""
    from rich.console import Console

    with silent_import():
        from keras_wm.research.experiments import EXPERIMENTS, Settings, run_experiment
        from keras_wm.research.experiments.worker import usual_workers

    if name == "list":
        for one in EXPERIMENTS.values():
            typer.echo(f"{one.name:20} {one.title}")
        return
    settings = Settings(
        data,
        epochs,
        seeds,
        n,
        k,
        group=group,
        bits=bits,
        marks=_listed(marks),
        weight_decay=weight_decay,
        families=None if families is None else _listed(families),
    )
    run_experiment(name, settings, out, Console(), workers or usual_workers())


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Your own marked model file.")],
    key: KeyOption,
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10 or an .npz file; else nothing is trained."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The same network without a mark.")
    ] = None,
    unmarked: Annotated[
        list[Path] | None,
        typer.Option(help="A network to find no mark in; may be repeated."),
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(help="Which families of attacks, with commas between; else all."),
    ] = None,
    strengths: Annotated[
        int | None, typer.Option(min=1, help="How many strengths of each attack.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each attack.")] = 1,
    tolerance: Annotated[
        float, typer.Option(help="The test error that an attack may cost and count.")
    ] = 0.02,
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path(
        "keras_wm_evaluation"
    ),
) -> None:
    """Attack your own marked model in every way, and report what the mark is worth."""
    from rich.console import Console

    with silent_import():
        from keras_wm.cli.evaluate_output import run_evaluation

    run_evaluation(
        model,
        load_key(key),
        data,
        out,
        Console(),
        baseline=baseline,
        unmarked=unmarked or (),
        families=None if families is None else _listed(families),
        strengths=strengths,
        seeds=seeds,
        tolerance=tolerance,
    )


def _listed(names: str) -> tuple[str, ...]:
    """Names that were given with commas between."""
    return tuple(name.strip() for name in names.split(","))
