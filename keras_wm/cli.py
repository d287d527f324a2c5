"""The command line.

Exit status: 0 the mark was found (or the job done), 1 it was not found, 2 something
could not be read, was refused or failed, 64 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from keras_wm.cli_input import (
    load_key,
    new_passphrase,
    read_limits,
    read_lines,
    reader_of,
)

if TYPE_CHECKING:
    from keras_wm.key import WatermarkKey


class Exit(IntEnum):
    """What the exit status says."""

    FOUND = 0
    NOT_FOUND = 1
    FAILED = 2
    USAGE = 64
    INTERRUPTED = 130


app = typer.Typer(
    help="Ownership watermarks for Keras models.",
    no_args_is_help=True,
    # Local variables in a traceback could show what is secret.
    pretty_exceptions_enable=False,
    add_completion=False,
)

KeyOption = Annotated[
    Path, typer.Option("--key", help="The key file.", show_default=False)
]
SandboxOption = Annotated[
    bool,
    typer.Option(help="Read the file in a process of its own, which it may crash."),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        help="What a file may ask for, such as array_bytes=8e9; may be repeated.",
        metavar="NAME=VALUE",
    ),
]
LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        help="The layer to look in, and all of them otherwise; repeated, layers to "
        "read as one.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def keygen(
    path: Annotated[Path, typer.Argument(help="Where the key file goes.")],
    owner: Annotated[str, typer.Option(help="Whom the mark names.")],
    bits: Annotated[int, typer.Option(help="The length of the message.")] = 256,
    projection: Annotated[str, typer.Option(help="random, direct or diff.")] = "random",
    filters: Annotated[str, typer.Option(help="keyed or mean.")] = "keyed",
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase.")
    ] = False,
) -> None:
    """Make a key. Keep it secret and back it up; publish its commitment."""
    from keras_wm.key import WatermarkKey

    key = WatermarkKey.generate(owner, bits, projection, filters)  # type: ignore[arg-type]
    key.save(path, new_passphrase() if encrypt else None)
    typer.echo(f"{path}: {key.bits} bits for {key.owner!r}, readable by you alone.")
    typer.echo(f"commitment: {key.commitment}")
    typer.echo("Publish the commitment, dated, before the model; never the key file.")


@app.command()
def derive(
    key: Annotated[Path, typer.Argument(help="The owner's key file.")],
    recipient: Annotated[str, typer.Argument(help="Whom the copy is for.")],
    path: Annotated[Path, typer.Argument(help="Where the recipient's key file goes.")],
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase.")
    ] = False,
) -> None:
    """Make the key that marks one recipient's copy, from the owner's."""
    derived = load_key(key).for_recipient(recipient)
    derived.save(path, new_passphrase() if encrypt else None)
    typer.echo(f"{path}: marks the copy for {recipient!r}, readable by you alone.")
    typer.echo(f"commitment: {derived.commitment}")


@app.command()
def verify(
    file: Annotated[str, typer.Argument(help="A model file, folder or URL.")],
    key: KeyOption,
    layers: LayersOption = None,
    recipients: Annotated[
        Path | None,
        typer.Option(help="A file with a recipient a line: whose copy is it?"),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Your own marked model, to undo what was rearranged."),
    ] = None,
    reordered: Annotated[
        bool, typer.Option("--reordered", help="Undo what was done to filters alone.")
    ] = False,
    sandbox: SandboxOption = True,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for a key's mark in a model file, without loading the model.

    With --recipients, look for the mark of each recipient's key.
    """
    if recipients is not None:
        _identify(file, load_key(key), recipients, layers, (limit, sandbox), as_json)
    with reader_of(limit, sandbox) as reader:
        from keras_wm.verification import verify as verify_model

        verification = verify_model(
            file,
            load_key(key),
            _layer_of(layers),
            reference=reference,
            reordered=reordered,
            **reader,
        )
    _print_report(verification, as_json)
    raise typer.Exit(Exit.FOUND if verification.marked else Exit.NOT_FOUND)


def _identify(
    file: str,
    key: WatermarkKey,
    recipients: Path,
    layers: list[str] | None,
    reading: tuple[list[str] | None, bool],
    as_json: bool,
) -> NoReturn:
    """The command `verify --recipients`."""
    if layers and len(layers) > 1:
        raise typer.BadParameter("Recipients are looked for in one --layer, or in all.")
    with reader_of(*reading) as reader:
        from keras_wm.recipients import identify

        layer = layers[0] if layers else None
        found = identify(file, key, read_lines(recipients), layer, **reader)
    _print_report(found, as_json)
    raise typer.Exit(Exit.FOUND if found.named else Exit.NOT_FOUND)


@app.command()
def compare(
    file: Annotated[str, typer.Argument(help="The model that two parties claim.")],
    keys: Annotated[
        list[Path],
        typer.Option("--key", help="A party's key; once for each.", show_default=False),
    ],
    originals: Annotated[
        list[str],
        typer.Option(
            "--original",
            help="The model that the party of the same place calls its own.",
            show_default=False,
        ),
    ],
    layers: LayersOption = None,
    sandbox: SandboxOption = True,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which of two marks in a model was there first.

    Exit status: 0 that is shown, 1 it is not.
    """
    if not len(keys) == len(originals) == 2:
        raise typer.BadParameter(
            f"Expected two --key and two --original, in the same order. Received: "
            f"{len(keys)} and {len(originals)}."
        )
    with reader_of(limit, sandbox) as reader:
        from keras_wm.priority import Claim
        from keras_wm.priority import compare as compare_marks

        loaded = [load_key(key) for key in keys]
        claims = [Claim(*claim) for claim in zip(loaded, originals, strict=True)]
        found = compare_marks(file, claims, _layer_of(layers), **reader)
    _print_report(found, as_json)
    raise typer.Exit(Exit.NOT_FOUND if found.first is None else Exit.FOUND)


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="A model file, folder or URL.")],
    sandbox: SandboxOption = True,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the kernels of a model file, and how many bits each can hold."""
    with reader_of(limit, sandbox) as reader:
        from keras_wm.inspection import inspect as inspect_model

        reports = inspect_model(file, **reader)
    if as_json:
        _print_json({"source": file, "kernels": [one.to_dict() for one in reports]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("layer", "variable", "shape", "dtype", "note", box=None)
    table.add_column("bits it holds", justify="right")
    table.add_column("unseen", justify="right")
    for one in reports:
        shape = "x".join(map(str, one.shape))
        table.add_row(
            one.layer,
            one.variable,
            shape,
            one.dtype,
            one.note,
            f"{one.holds}",
            f"{one.unseen}",
        )
    Console().print(table)


@app.command()
def scan(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, patterns and URLs.", show_default=False),
    ] = None,
    keys: Annotated[
        list[Path] | None,
        typer.Option("--key", help="A key file; may be repeated.", show_default=False),
    ] = None,
    list_file: Annotated[
        Path | None,
        typer.Option("--list", help="A file with one source a line; - is the input."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="The layer to look in; all of them otherwise.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="A file for all results, by which a scan goes on."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one a core otherwise.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="A Dask scheduler's address, to scan there.")
    ] = None,
    limit: LimitOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines as results come.")
    ] = False,
) -> None:
    """Look for the marks of many keys in many model files.

    Exit status: 0 a mark was found, 1 none was found, 2 none was found and a file could
    not be read.
    """
    from keras_wm.scanning.command import ScanOptions, run_scan

    if not keys:
        raise typer.BadParameter("Name a key file with --key.")
    status = run_scan(
        [*(sources or []), *read_lines(list_file)],
        [load_key(key) for key in keys],
        ScanOptions(layer, record, workers, dask, read_limits(limit), as_json),
    )
    raise typer.Exit(status)


@app.command()
def publish(
    source: Annotated[Path, typer.Argument(help="Your own marked model file.")],
    target: Annotated[Path, typer.Argument(help="Where the clean file goes.")],
    keep_optimizer: Annotated[
        bool, typer.Option("--keep-optimizer", help="Keep the optimizer's state.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the target if it exists.")
    ] = False,
) -> None:
    """Save a model without a trace of its mark's key. Loads your file with Keras."""
    import warnings

    with _silent_import():
        import keras

    from keras_wm.publishing import publish as publish_model
    from keras_wm.regularizer import WatermarkRegularizer  # noqa: F401 (registers it)

    if not source.is_file():
        raise FileNotFoundError(f"There is no file {str(source)!r}.")
    with warnings.catch_warnings():
        # That the mark is inert without its key does not matter to a copy.
        warnings.simplefilter("ignore")
        model = keras.saving.load_model(source)
    publish_model(model, target, include_optimizer=keep_optimizer, overwrite=force)
    typer.echo(f"{target}: no trace of keras_wm, weights unchanged.")


@app.command()
def demo(
    data: Annotated[
        str, typer.Option(help="digits, cifar10 or an .npz file.")
    ] = "digits",
    epochs: Annotated[int, typer.Option(min=1, help="How long to train.")] = 20,
    bits: Annotated[int, typer.Option(min=1, help="The length of the message.")] = 256,
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

    with _silent_import():
        from keras_wm.demo import DemoSettings, run_demo

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
    bits: Annotated[int, typer.Option(min=1, help="The length of the message.")] = 256,
    marks: Annotated[
        str, typer.Option(help="Which marks to compare, with commas between.")
    ] = "direct,diff,random,default",
    weight_decay: Annotated[
        float, typer.Option(help="The papers write 5e-4; their code has none.")
    ] = 5e-4,
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

    with _silent_import():
        from keras_wm.experiments import EXPERIMENTS, Settings, run_experiment
        from keras_wm.experiments.worker import usual_workers

    if name == "list":
        for one in EXPERIMENTS.values():
            typer.echo(f"{one.name:20} {one.title}")
        return
    names = tuple(mark.strip() for mark in marks.split(","))
    settings = Settings(
        data,
        epochs,
        seeds,
        n,
        k,
        group=group,
        bits=bits,
        marks=names,
        weight_decay=weight_decay,
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

    with _silent_import():
        from keras_wm.evaluation.command import run_evaluation

    run_evaluation(
        model,
        load_key(key),
        data,
        out,
        Console(),
        baseline=baseline,
        unmarked=unmarked or (),
        families=None if families is None else families.split(","),
        strengths=strengths,
        seeds=seeds,
        tolerance=tolerance,
    )


def main() -> None:
    """Runs the command line, errors on one line."""
    # Click's own status for wrong usage, 2, would say that a file could not be read.
    # Typer has a copy of click from some version on, and no name for this class.
    usage_error: Any = typer.BadParameter.__base__
    usage_error.exit_code = Exit.USAGE
    # Click's status for an interrupt, 1, would say that no mark was found.
    signal.signal(signal.SIGINT, _interrupted)
    try:
        app()
    except (ImportError, OSError, TypeError, ValueError) as error:
        typer.echo(f"keras-wm: {' '.join(str(error).split())}", err=True)
        sys.exit(Exit.FAILED)


def _interrupted(*_: object) -> NoReturn:
    raise SystemExit(Exit.INTERRUPTED)


def _layer_of(layers: list[str] | None) -> str | list[str] | None:
    """Of one layer every kernel is tried; several layers are read as one."""
    return layers[0] if layers and len(layers) == 1 else layers or None


def _print_report(report: Any, as_json: bool) -> None:
    if as_json:
        _print_json(report.to_dict())
    else:
        typer.echo(repr(report))


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))


@contextlib.contextmanager
def _silent_import() -> Iterator[None]:
    """Imports TensorFlow as a command does: fast, and without its start-up notes.

    They come from C++, before any log level is heeded, so that only the descriptor
    can be silenced. By itself it uses oneDNN on the newest processors alone; on older
    ones that trains twice as fast.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
