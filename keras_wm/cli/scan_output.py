"""Runs `keras-wm scan` and prints its results: JSON lines, or tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_wm.cli.app import Exit, found_status
from keras_wm.scanning.examiner import ScanSettings
from keras_wm.scanning.scan_report import FileResult, Match, ScanReport
from keras_wm.scanning.scanner import scan
from keras_wm.scheme.detection import format_p
from keras_wm.utils.text import printable

# Largest number of unread files to print. JSON and the record have all of them.
_SHOWN_UNREAD = 20
# Largest number of characters in a cell of a table.
_CELL_LENGTH = 1000


def run_scan(
    sources: Sequence[str],
    settings: ScanSettings,
    record: Path | None,
    workers: int | None,
    dask: str | None,
    as_json: bool,
    require: str | None,
) -> int:
    """Runs a scan and prints its results. The arguments are options of the command.

    Returns:
        The exit status: that of the found marks, see `found_status`, or 2 if no mark
        was found and a file could not be read.

    Raises:
        ValueError: If there is no source.
    """
    if not sources:
        raise ValueError("Expected files, folders, patterns or URLs. Received: none.")
    if as_json:
        typer.echo(json.dumps(settings.header()))
    with _cluster(dask) as client:
        report = scan(
            sources,
            settings.keys,
            layer=settings.layer,
            slots=settings.slots,
            limits=settings.limits,
            workers=workers,
            client=client,
            record=record,
            on_result=_print_result if as_json else None,
            progress=True,
        )
    if as_json:
        typer.echo(json.dumps({"summary": report.to_dict()}))
    else:
        _print_tables(report)
    status = found_status(
        report.meets(require), bool(report.found), bool(report.unused), require
    )
    return Exit.FAILED if status == Exit.NOT_FOUND and report.unread else status


def _print_result(result: FileResult) -> None:
    typer.echo(json.dumps(result.to_dict()))


def _print_tables(report: ScanReport) -> None:
    """Prints the marks, the files that could not be read, and the correction."""
    console = Console(highlight=False)
    matches = [*report.found, *report.unused]
    if matches:
        console.print(_match_table(matches))
    if not report.found:
        console.print("No mark was found.")
    if report.unread:
        console.print()
        console.print(_unread_table(report))
    console.print()
    by_count = sorted(report.formats.items(), key=lambda item: (-item[1], item[0]))
    formats = ", ".join(f"{count:,} {name}" for name, count in by_count)
    console.print(f"read: {formats or 'no model file'}")
    if report.others:
        console.print(f"other files, not models: {report.others:,}")
    console.print(report.correction)
    # Many matches have the same explanation.
    for explanation in dict.fromkeys(match.explanation for match in matches):
        if explanation:
            console.print(explanation)


def _match_table(matches: Sequence[Match]) -> Table:
    names = ("file", "owner", "verdict", "standing", "p", "errors", "kernel")
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    keys = {(match.key.owner, match.key.commitment) for match in matches}
    keys_by_owner = Counter(owner for owner, _ in keys)
    for match in matches:
        key = match.key
        # Several keys of one owner are distinguished by their commitments.
        commitment = f" {key.commitment[:8]}" if keys_by_owner[key.owner] > 1 else ""
        cells = [match.file, f"{key.owner}{commitment}", match.verdict.upper()]
        cells.append("" if key.unused else key.standing)
        cells += [format_p(match.log10_p), f"{key.bits - key.matches}/{key.bits}"]
        slot = f", slot {key.slot}" if key.slot else ""
        note = f" ({key.note})" if key.note else ""
        cells.append(f"{key.layer}{slot}{note}")
        _add_row(table, *cells)
    return table


def _unread_table(report: ScanReport) -> Table:
    kinds = Counter(result.error for result in report.unread)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    title = f"could not be read: {counts}"
    table = Table("file", "reason", title=title, title_justify="left", box=SIMPLE_HEAD)
    by_name = sorted(report.unread, key=lambda result: result.file)
    for result in by_name[:_SHOWN_UNREAD]:
        _add_row(table, result.file, result.message)
    if by_name[_SHOWN_UNREAD:]:
        more = f"and {len(by_name[_SHOWN_UNREAD:]):,} more"
        _add_row(table, more, "see --json or --record")
    return table


def _add_row(table: Table, *cells: str) -> None:
    # As Text, because a file's name can look like Rich's markup.
    texts = (Text(printable(cell, _CELL_LENGTH), overflow="fold") for cell in cells)
    table.add_row(*texts)


def _cluster(address: str | None) -> AbstractContextManager[Any]:
    """Returns a client of a Dask cluster, or `None` without an address."""
    if address is None:
        return nullcontext()
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            'Scanning on a cluster needs Dask: pip install "keras-wm[dask]".'
        ) from None
    connect: Any = Client
    return cast(AbstractContextManager[Any], connect(address))
