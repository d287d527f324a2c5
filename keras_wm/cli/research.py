"""The commands that train networks: evaluate, experiment and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_wm.cli.app import KeyOption, silent_import
from keras_wm.cli.inputs import load_key, split_names
from keras_wm.scheme.capacity import USUAL_BITS

DataOption = Annotated[
    str,
    typer.Option(
        help="Data set: digits, cifar10 or an .npz file.", metavar="NAME|FILE"
    ),
]
BlocksOption = Annotated[
    int, typer.Option("--n", min=1, metavar="N", help="Residual blocks per group, N.")
]
WidthOption = Annotated[
    int, typer.Option("--k", min=1, metavar="N", help="Widening factor, k.")
]


def evaluate(
    model: Annotated[
        Path, typer.Argument(help="Your marked model file.", metavar="FILE")
    ],
    key: KeyOption,
    data: Annotated[
        str | None,
        typer.Option(
            help="Data set: digits, cifar10 or an .npz file. Without it, attacks that "
            "train are skipped.",
            metavar="NAME|FILE",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="The same network trained without a mark.", metavar="FILE"),
    ] = None,
    unmarked: Annotated[
        list[Path] | None,
        typer.Option(
            help="A network without the mark, attacked to count false alarms. "
            "Repeatable.",
            metavar="FILE",
        ),
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(
            help="Families of attacks, separated by commas (default: all).",
            metavar="NAMES",
        ),
    ] = None,
    strengths: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of strengths of each attack (default: all).",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of repetitions of each attack."),
    ] = 1,
    tolerance: Annotated[
        float,
        typer.Option(
            help="Largest increase of the test error at which an attack still counts."
        ),
    ] = 0.02,
    out: Annotated[
        Path, typer.Option(help="Output folder of the report.", metavar="FOLDER")
    ] = Path("keras_wm_evaluation"),
) -> None:
    """Run all attacks on your marked model, and report what the mark is worth."""
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
        families=None if families is None else split_names(families),
        strengths=strengths,
        seeds=seeds,
        tolerance=tolerance,
    )


def experiment(
    name: Annotated[
        str,
        typer.Argument(
            help="Experiment name, or `all`, `robustness` or `list`.", metavar="NAME"
        ),
    ],
    data: DataOption = "digits",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Epochs of training (default: 200, on digits 12)."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of networks of each kind.")
    ] = 5,
    n: BlocksOption = 1,
    k: WidthOption = 4,
    group: Annotated[
        int, typer.Option(help="Group of convolutions that is marked.", metavar="N")
    ] = 2,
    bits: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of bits of the message (default: 64 for the mark `default`, "
            "256 for the others).",
        ),
    ] = None,
    marks: Annotated[
        str,
        typer.Option(
            help="Marks to compare, separated by commas.",
            metavar="NAMES",
        ),
    ] = "direct,diff,random,default",
    weight_decay: Annotated[
        float,
        typer.Option(help="Weight decay. The papers state 5e-4; their code has none."),
    ] = 5e-4,
    families: Annotated[
        str | None,
        typer.Option(
            help="Families of attacks for the experiment `resistance`, separated by "
            "commas (default: all).",
            metavar="NAMES",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of processes (default: one per core, at most 4; with a "
            "GPU 1).",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Output folder of the results.", metavar="FOLDER")
    ] = Path("keras_wm_experiments"),
) -> None:
    """Run an experiment of the papers or on robustness.

    An interrupted experiment resumes from the results in the output folder.
    """
    from rich.console import Console

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
        families=None if families is None else split_names(families),
    )
    run_experiment(name, settings, out, Console(), workers or default_workers())


def demo(
    data: DataOption = "digits",
    epochs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Epochs of training.")
    ] = 20,
    bits: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of bits of the message.")
    ] = USUAL_BITS,
    layer: Annotated[
        str, typer.Option(help="Convolution to mark.", metavar="NAME")
    ] = "conv3_block1_conv2",
    n: BlocksOption = 1,
    k: WidthOption = 4,
    seed: Annotated[
        int,
        typer.Option(
            help="Random seed of the weights and the data order.", metavar="N"
        ),
    ] = 0,
    out: Annotated[
        Path, typer.Option(help="Output folder of the results.", metavar="FOLDER")
    ] = Path("keras_wm_demo"),
) -> None:
    """Mark a wide residual network while it trains, publish it and prove the mark."""
    from rich.console import Console

    with silent_import():
        from keras_wm.research.demo import DemoSettings, run_demo

    settings = DemoSettings(data, epochs, bits, layer, n, k, seed)
    run_demo(settings, out, Console())
