"""Runs `keras-wm scan` and prints its results: JSON lines, or tables."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_wm.cli.app import Exit
from keras_wm.files import Limits
from keras_wm.scanning.examiner import ScanSettings
from keras_wm.scanning.scan_report import FileResult, ScanReport
from keras_wm.scanning.scanner import scan
from keras_wm.scheme.detection import format_p
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.text import printable

# So many unread files are printed at most. JSON and the record have all of them.
_SHOWN_UNREAD = 20
# A cell of a table is cut after so many characters.
_CELL_LENGTH = 1000


@dataclass(frozen=True)
class ScanOptions:
    """The options of the command; see `keras_wm.scan`."""

    layer: str | None
    record: Path | None
    workers: int | None
    dask: str | None
    limits: Limits
    as_json: bool


def run_scan(
    sources: Sequence[str], keys: Sequence[WatermarkKey], options: ScanOptions
) -> int:
    """Runs a scan and prints its results.

    Args:
        sources: Files, folders, patterns and URLs.
        keys: Keys to look for.
        options: Options of the command.

    Returns:
        The exit status: 0 a mark was found, 1 no mark was found, 2 no mark was found
        and a file could not be read.

    Raises:
        ValueError: If there is no source.
    """
    if not sources:
        raise ValueError("Expected files, folders, patterns or URLs. Received: none.")
    if options.as_json:
        settings = ScanSettings(keys, options.layer, options.limits)
        _print_line(settings.header())
    with _cluster(options.dask) as client:
        report = scan(
            sources,
            keys,
            layer=options.layer,
            limits=options.limits,
            workers=options.workers,
            client=client,
            record=options.record,
            on_result=_print_result if options.as_json else None,
            progress=True,
        )
    if options.as_json:
        _print_line({"summary": report.to_dict()})
    else:
        _print_tables(report, Console())
    if report.found:
        return Exit.FOUND
    return Exit.FAILED if report.unread else Exit.NOT_FOUND


def _print_tables(report: ScanReport, console: Console) -> None:
    """Prints the marks, the files that could not be read, and the correction."""
    if report.found:
        console.print(_match_table(report))
    else:
        console.print("No mark was found.")
    if report.unread:
        console.print()
        console.print(_unread_table(report))
    console.print()
    by_count = sorted(report.formats.items(), key=lambda item: (-item[1], item[0]))
    formats = ", ".join(f"{count:,} {name}" for name, count in by_count)
    console.print(f"read: {formats or 'no model file'}", highlight=False)
    if report.others:
        console.print(f"other files, not models: {report.others:,}", highlight=False)
    console.print(report.correction, highlight=False)
    if any(not match.key.certified for match in report.found):
        console.print(
            "A key given as arrays proves nothing by itself unless it is known to be "
            "older than the model."
        )


def _match_table(report: ScanReport) -> Table:
    names = ("file", "owner", "verdict", "p", "errors", "kernel")
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    keys = {(match.key.owner, match.key.commitment) for match in report.found}
    keys_by_owner = Counter(owner for owner, _ in keys)
    for match in report.found:
        key = match.key
        # Several keys of one owner are distinguished by their commitments.
        commitment = f" {key.commitment[:8]}" if keys_by_owner[key.owner] > 1 else ""
        note = f" ({key.note})" if key.note else ""
        _add_row(
            table,
            match.file,
            f"{key.owner}{commitment}",
            match.verdict.upper(),
            format_p(match.log10_p),
            f"{key.bits - key.matches}/{key.bits}",
            f"{key.layer}{note}",
        )
    return table


def _unread_table(report: ScanReport) -> Table:
    kinds = Counter(result.error for result in report.unread)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    table = Table(
        "file", "reason", title=f"could not be read: {counts}", box=SIMPLE_HEAD
    )
    table.title_justify = "left"
    shown = sorted(report.unread, key=lambda result: result.file)[:_SHOWN_UNREAD]
    for result in shown:
        _add_row(table, result.file, result.message)
    if len(report.unread) > len(shown):
        more = len(report.unread) - len(shown)
        _add_row(table, f"and {more:,} more", "see --json or --record")
    return table


def _add_row(table: Table, *cells: str) -> None:
    # As Text, because a file's name can look like Rich's markup.
    texts = (Text(printable(cell, _CELL_LENGTH), overflow="fold") for cell in cells)
    table.add_row(*texts)


def _print_result(result: FileResult) -> None:
    _print_line(result.to_dict())


def _print_line(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Yields a client of a Dask cluster, or `None` without an address."""
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ImportError(
            'Scanning on a cluster needs Dask: pip install "keras-wm[dask]".'
        ) from None
    connect: Any = Client
    with connect(address) as client:
        yield client
