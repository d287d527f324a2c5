"""The commands that look for marks in files; none of them imports Keras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from keras_wm.cli.app import (
    Exit,
    JsonOption,
    KeyOption,
    LayersOption,
    LimitOption,
    SandboxOption,
    app,
    layer_of,
    print_report,
)
from keras_wm.cli.inputs import load_key, read_limits, read_lines, reader_of

if TYPE_CHECKING:
    from keras_wm.scheme.key import WatermarkKey


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
        from keras_wm.verification.verification import verify as verify_model

        verification = verify_model(
            file,
            load_key(key),
            layer_of(layers),
            reference=reference,
            reordered=reordered,
            **reader,
        )
    print_report(verification, as_json)
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
        from keras_wm.verification.identification import identify

        layer = layers[0] if layers else None
        names = read_lines(recipients)
        found = identify(file, key, names, layer, progress=True, **reader)
    print_report(found, as_json)
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
        from keras_wm.verification.comparison import Claim
        from keras_wm.verification.comparison import compare as compare_marks

        loaded = [load_key(key) for key in keys]
        claims = [Claim(*claim) for claim in zip(loaded, originals, strict=True)]
        found = compare_marks(file, claims, layer_of(layers), **reader)
    print_report(found, as_json)
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
        from keras_wm.verification.inspection import inspect as inspect_model

        inspection = inspect_model(file, **reader)
    print_report(inspection, as_json)


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
    from keras_wm.cli.scan_output import ScanOptions, run_scan

    if not keys:
        raise typer.BadParameter("Name a key file with --key.")
    status = run_scan(
        [*(sources or []), *read_lines(list_file)],
        [load_key(key) for key in keys],
        ScanOptions(layer, record, workers, dask, read_limits(limit), as_json),
    )
    raise typer.Exit(status)
