"""The command line: `keras-wm keygen | verify | inspect | publish | demo`.

Exit status: 0 the mark was found (or the job done), 1 it was not found, 2 something
could not be read, was refused or failed, 64 wrong usage.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from keras_wm.key import WatermarkKey

PASSPHRASE_VARIABLE = "KERAS_WM_PASSPHRASE"  # noqa: S105 (a name, not a passphrase)


class Exit(IntEnum):
    """What the exit status says."""

    FOUND = 0
    NOT_FOUND = 1
    FAILED = 2
    USAGE = 64


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
    key.save(path, _new_passphrase() if encrypt else None)
    typer.echo(f"{path}: {key.bits} bits for {key.owner!r}, readable by you alone.")
    typer.echo(f"commitment: {key.commitment}")
    typer.echo("Publish the commitment, dated, before the model; never the key file.")


@app.command()
def verify(
    file: Annotated[str, typer.Argument(help="A .keras, .h5 or .weights.h5 file.")],
    key: KeyOption,
    layer: Annotated[
        str | None, typer.Option(help="The layer to look in; all of them otherwise.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for a key's mark in a model file, without loading the model."""
    from keras_wm.verification import verify as verify_model

    verification = verify_model(file, _load_key(key), layer)
    if as_json:
        _print_json(verification.to_dict())
    else:
        typer.echo(repr(verification))
    raise typer.Exit(Exit.FOUND if verification.marked else Exit.NOT_FOUND)


@app.command()
def inspect(
    file: Annotated[str, typer.Argument(help="A .keras, .h5 or .weights.h5 file.")],
    as_json: JsonOption = False,
) -> None:
    """List the kernels of a model file, and how many bits each can hold."""
    from keras_wm.inspection import inspect as inspect_model

    reports = inspect_model(file)
    if as_json:
        _print_json({"source": file, "kernels": [one.to_dict() for one in reports]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("layer", "variable", "shape", "dtype", box=None)
    table.add_column("bits it holds", justify="right")
    table.add_column("unseen", justify="right")
    for one in reports:
        shape = "x".join(map(str, one.shape))
        table.add_row(
            one.layer, one.variable, shape, one.dtype, f"{one.holds}", f"{one.unseen}"
        )
    Console().print(table)


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


def main() -> None:
    """Runs the command line, errors on one line."""
    try:
        app()
    except SystemExit as exit_:
        # Commands raise what fails in them, so that a 2 here is the parser's.
        sys.exit(Exit.USAGE if exit_.code == Exit.FAILED else exit_.code)
    except (ImportError, OSError, TypeError, ValueError) as error:
        typer.echo(f"keras-wm: {' '.join(str(error).split())}", err=True)
        sys.exit(Exit.FAILED)


def _load_key(path: Path) -> WatermarkKey:
    from keras_wm.errors import WrongPassphraseError
    from keras_wm.key import WatermarkKey

    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    try:
        return WatermarkKey.load(path, passphrase)
    except WrongPassphraseError:
        if passphrase is not None or not sys.stdin.isatty():
            raise
    return WatermarkKey.load(path, _ask_passphrase(confirm=False))


def _new_passphrase() -> str:
    return os.environ.get(PASSPHRASE_VARIABLE) or _ask_passphrase(confirm=True)


def _ask_passphrase(confirm: bool) -> str:
    try:
        return str(
            typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm)
        )
    except typer.Abort:
        # Its own status, 1, would say that the mark was not found.
        raise ValueError("No passphrase was given.") from None


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))


@contextlib.contextmanager
def _silent_import() -> Iterator[None]:
    """Keeps TensorFlow's start-up notes off the terminal.

    They come from C++, before any log level is heeded, so that only the descriptor
    can be silenced.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
