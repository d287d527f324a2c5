"""The commands that search files for marks. None of them imports Keras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_wm.cli import options
from keras_wm.cli.app import found_status, print_report
from keras_wm.cli.inputs import file_reader, load_key, read_limits, read_names
from keras_wm.cli.options import argument, count, flag, option

if TYPE_CHECKING:
    from keras_wm.verification.identification import Identification
    from keras_wm.verification.result import Verification


def verify(
    file: options.File,
    key: options.Key,
    layers: options.Layers = None,
    slots: options.Slots = None,
    recipients: options.Recipients = None,
    reference: Annotated[
        str | None,
        option(
            "Your original marked model; used to undo permutation, scaling and "
            "sign flips of channels.",
            "FILE",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        option(
            "Your model from before it was marked; used for the same purpose.", "FILE"
        ),
    ] = None,
    reordered: Annotated[
        bool,
        flag(
            "--reordered",
            "Also try to undo reordering and sign flips of output filters (no "
            "reference needed).",
        ),
    ] = False,
    original: Annotated[
        str | None,
        option(
            "With --recipients: your model that the copies were made from; finds "
            "many recipients who mixed their copies.",
            "FILE",
        ),
    ] = None,
    claim: options.Claim = None,
    published: options.Published = None,
    controls: options.Controls = None,
    tsa_certificates: options.TsaCertificates = None,
    require: options.Require = None,
    sandbox: options.Sandbox = True,
    limit: options.Limit = None,
    as_json: options.Json = False,
) -> None:
    """Search a model file for a key's mark, without loading the model.

    With --recipients, search for each recipient's mark to see whose copy it is.

    Exit status: 0 a mark was found, 1 no mark was found, 3 a mark was found only in
    weights that the model does not use.
    """
    alignment: dict[str, Any] = {
        "reference": reference,
        "checkpoint": checkpoint,
        "reordered": reordered,
    }
    _check_search(recipients, original, layers or [], alignment)
    dating: dict[str, Any] = {
        "claim": claim,
        "published": published,
        "controls": controls or (),
        "tsa_certificates": tsa_certificates,
    }
    with file_reader(limit, sandbox) as reader:
        report: Verification | Identification
        if recipients is None:
            from keras_wm.verification.verification import verify as verify_model

            report = verify_model(
                file,
                load_key(key),
                _layer_of(layers),
                slots=slots,
                **alignment,
                **dating,
                **reader,
            )
            is_found = report.marked
        else:
            from keras_wm.verification.identification import identify

            names = read_names(recipients)
            layer = layers[0] if layers else None
            report = identify(
                file,
                load_key(key),
                names,
                layer,
                progress=True,
                slots=slots,
                original=original,
                **dating,
                **reader,
            )
            is_found = bool(report.named)
    print_report(report, as_json)
    is_unused = bool(report.unused)
    raise typer.Exit(found_status(report.meets(require), is_found, is_unused, require))


def compare(
    file: Annotated[str, argument("The model that both parties claim.", "FILE")],
    keys: Annotated[
        list[Path], option("Key file of each party. Give two.", "FILE", "--key")
    ],
    originals: Annotated[
        list[str],
        option(
            "Original model of each party, in the same order as --key.",
            "FILE",
            "--original",
        ),
    ],
    claims: Annotated[
        list[str] | None,
        option(
            "Claim of each party, in the same order as --key. Give two or none.",
            "FILE",
            "--claim",
        ),
    ] = None,
    published: options.Published = None,
    controls: options.Controls = None,
    tsa_certificates: options.TsaCertificates = None,
    layers: options.Layers = None,
    slots: options.Slots = None,
    require: options.Require = None,
    sandbox: options.Sandbox = True,
    limit: options.Limit = None,
    as_json: options.Json = False,
) -> None:
    """Determine which of two marks in a model was embedded first.

    Exit status: 0 the order is shown, 1 it is not shown.
    """
    if not len(keys) == len(originals) == 2:
        raise typer.BadParameter(
            f"Expected two --key and two --original, in the same order. Received: "
            f"{len(keys)} and {len(originals)}."
        )
    if claims and len(claims) != 2:
        raise typer.BadParameter(
            "Expected two --claim in the same order as --key, or no claim. Received: "
            f"{len(claims)}."
        )
    with file_reader(limit, sandbox) as reader:
        from keras_wm.verification.comparison import Party
        from keras_wm.verification.comparison import compare as compare_marks

        parties = list(
            map(Party, map(load_key, keys), originals, claims or (None, None))
        )
        layer = _layer_of(layers)
        comparison = compare_marks(
            file,
            parties,
            layer,
            slots=slots,
            published=published,
            controls=controls or (),
            tsa_certificates=tsa_certificates,
            **reader,
        )
    print_report(comparison, as_json)
    is_shown = comparison.first is not None
    raise typer.Exit(found_status(comparison.meets(require), is_shown, False, require))


def inspect(
    file: options.File,
    sandbox: options.Sandbox = True,
    limit: options.Limit = None,
    as_json: options.Json = False,
) -> None:
    """List the kernels of a model file, and how many bits each can hold."""
    with file_reader(limit, sandbox) as reader:
        from keras_wm.verification.inspection import inspect as inspect_model

        inspection = inspect_model(file, **reader)
    print_report(inspection, as_json)


def scan(
    keys: Annotated[list[Path], option("Key file. Repeatable.", "FILE", "--key")],
    sources: Annotated[
        list[str] | None,
        argument("Files, folders, patterns and URLs.", "SOURCE...", show_default=False),
    ] = None,
    list_file: Annotated[
        Path | None,
        option("File of sources, one per line (- for stdin).", "FILE", "--list"),
    ] = None,
    layer: Annotated[
        str | None, option("Layer to search (default: all).", "NAME")
    ] = None,
    slots: Annotated[int, count("Number of slots of each key to test.")] = 1,
    record: Annotated[
        Path | None,
        option("Results as JSON lines. An interrupted scan resumes from them.", "FILE"),
    ] = None,
    workers: Annotated[
        int | None, count("Number of processes (default: one per core).")
    ] = None,
    dask: Annotated[
        str | None, option("Scan on the Dask cluster of this scheduler.", "ADDRESS")
    ] = None,
    require: options.Require = None,
    limit: options.Limit = None,
    as_json: Annotated[
        bool, flag("--json", "Print JSON lines as results arrive.")
    ] = False,
) -> None:
    """Search many model files for the marks of many keys.

    Exit status: 0 a mark was found, 1 no mark was found, 2 no mark was found and
    a file could not be read, 3 a mark was found only in weights that a model does not
    use.
    """
    from keras_wm.cli.scan_output import run_scan
    from keras_wm.scanning.examiner import ScanSettings

    loaded, limits = [load_key(key) for key in keys], read_limits(limit)
    settings = ScanSettings(loaded, layer, limits, slots)
    paths = [*(sources or []), *read_names(list_file)]
    raise typer.Exit(run_scan(paths, settings, record, workers, dask, as_json, require))


def _check_search(
    recipients: object,
    original: str | None,
    layers: list[str],
    alignment: dict[str, Any],
) -> None:
    """Raises an error if these options of `verify` cannot be given together."""
    if recipients is None:
        if original is not None:
            raise typer.BadParameter(
                "Expected --original with --recipients only. To undo a permutation of "
                f"channels, use --reference. Received: --original {original}."
            )
        return
    given = [f"--{name}" for name, value in alignment.items() if value]
    if len(layers) > 1:
        given.append("several --layer")
    if given:
        raise typer.BadParameter(
            "Expected --recipients with one --layer at most, and without --reference, "
            f"--checkpoint and --reordered. Received: {', '.join(given)}. To use these "
            "options, make the key of one recipient with `keras-wm derive`, and pass "
            "it as --key without --recipients."
        )


def _layer_of(layers: list[str] | None) -> str | list[str] | None:
    """Returns the layer for `verify`: `None`, a name, or a list of several names."""
    return layers[0] if layers and len(layers) == 1 else layers or None
