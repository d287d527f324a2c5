"""The record of a scan: JSON lines, by which it goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from keras_wm.scanning.scan_report import FileResult
from keras_wm.utils.records import whole_lines

# What the first line starts with; its value is the version of the format.
MARKER = "keras_wm_scan"


class Record:
    """A file with a line for what is scanned for, and one for each file's result.

    Args:
        path: Where the record is, or goes.
        header: What the scan is: its keys and settings. A record of another scan is
            not gone on with.

    Attributes:
        results: What an earlier run of the scan found.
    """

    def __init__(self, path: str | os.PathLike[str], header: dict[str, Any]) -> None:
        self._path = Path(path)
        self._header = header
        self._whole = 0
        self.results: dict[str, FileResult] = {}
        if self._path.exists() and self._path.stat().st_size:
            self._read()

    def _read(self) -> None:
        for number, line in enumerate(whole_lines(self._path), 1):
            self._take(number, line)
            self._whole += len(line)

    def _take(self, number: int, line: bytes) -> None:
        try:
            values = json.loads(line)
            if number > 1:
                result = FileResult.from_dict(values)
                self.results[result.file] = result
                return
            version = values[MARKER]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Line {number} of {str(self._path)!r} is none of a scan's record. "
                "Name another file for the record."
            ) from error
        if values != self._header:
            raise ValueError(
                f"{str(self._path)!r} is the record of another scan: it was made "
                "with other keys, another layer, other limits or another version "
                f"({version}). Name another file, or delete this one to start again."
            )

    @contextmanager
    def writing(self) -> Iterator[TextIO]:
        """Opens the record to go on with it, behind its last whole line."""
        with self._path.open("a+", encoding="utf-8") as file:
            file.truncate(self._whole)
            if not self._whole:
                write_line(file, self._header)
            yield file


def write_line(file: TextIO, values: dict[str, Any]) -> None:
    """Writes one line, and does not keep it back."""
    file.write(json.dumps(values) + "\n")
    file.flush()
