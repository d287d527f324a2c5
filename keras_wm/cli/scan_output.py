"""What `keras-wm scan` shows: a bar while it runs, lines or a table, a status."""

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

from keras_wm.files import Limits
from keras_wm.scanning.examiner import ScanSettings
from keras_wm.scanning.scan_report import FileResult, ScanReport
from keras_wm.scanning.scanner import scan
from keras_wm.scheme.detection import format_p
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.text import printable

_SHOWN_UNREAD = 20


@dataclass(frozen=True)
class ScanOptions:
    """The options of the command; see `scan`."""

    layer: str | None
    record: Path | None
    workers: int | None
    dask: str | None
    limits: Limits
    as_json: bool


def run_scan(
    sources: Sequence[str], keys: Sequence[WatermarkKey], options: ScanOptions
) -> int:
    """Scans and prints.

    Returns:
        The exit status: 0 a mark was found, 1 none was found, 2 none was found and a
        file could not be read.
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
        print_report(report, Console())
    if report.found:
        return 0
    return 2 if report.unread else 1


def print_report(report: ScanReport, console: Console) -> None:
    """Prints what was found as a table, what could not be read, and the correction."""
    if report.found:
        console.print(_found(report))
    else:
        console.print("No mark was found.")
    if report.unread:
        console.print()
        console.print(_unread(report))
    console.print()
    formats = ", ".join(f"{count:,} {name}" for name, count in _by_count(report))
    console.print(f"read: {formats or 'no model file'}", highlight=False)
    if report.others:
        console.print(f"other files, no models: {report.others:,}", highlight=False)
    console.print(report.correction, highlight=False)
    if any(not match.key.certified for match in report.found):
        console.print(
            "A key given as arrays proves nothing by itself unless it is known to be "
            "older than the model."
        )


def _found(report: ScanReport) -> Table:
    names = ("file", "owner", "verdict", "p", "errors", "kernel")
    table = Table(*names, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    keys = {(match.key.owner, match.key.commitment) for match in report.found}
    owners = Counter(owner for owner, _ in keys)
    for match in report.found:
        key = match.key
        which = f" {key.commitment[:8]}" if owners[key.owner] > 1 else ""
        note = f" ({key.note})" if key.note else ""
        _add_row(
            table,
            match.file,
            f"{key.owner}{which}",
            match.verdict.upper(),
            format_p(match.log10_p),
            f"{key.bits - key.matches}/{key.bits}",
            f"{key.layer}{note}",
        )
    return table


def _unread(report: ScanReport) -> Table:
    kinds = Counter(one.error for one in report.unread)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
    table = Table("file", "why", title=f"could not be read: {counts}", box=SIMPLE_HEAD)
    table.title_justify = "left"
    shown = sorted(report.unread, key=lambda one: one.file)[:_SHOWN_UNREAD]
    for one in shown:
        _add_row(table, one.file, one.message)
    if len(report.unread) > len(shown):
        more = len(report.unread) - len(shown)
        _add_row(table, f"and {more:,} more", "see --json or --record")
    return table


def _add_row(table: Table, *cells: str) -> None:
    # As Text, for a file's name is no markup.
    table.add_row(*(Text(printable(cell, 1000), overflow="fold") for cell in cells))


def _by_count(report: ScanReport) -> list[tuple[str, int]]:
    return sorted(report.formats.items(), key=lambda item: (-item[1], item[0]))


def _print_result(result: FileResult) -> None:
    _print_line(result.to_dict())


def _print_line(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """A client of a Dask cluster, or `None` without an address."""
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
