"""Results in a file of JSON lines, from which an interrupted command resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

from keras_wm.utils.atomic import check_folder
from keras_wm.utils.text import printable

Result = TypeVar("Result")


class RecordFile(Generic[Result]):
    """A file of results, one JSON object per line, to which results are appended.

    If the writing process is killed, only the last line can be incomplete. It is
    ignored, and overwritten by the next result.

    Args:
        path: The file. A missing or empty one is started.
        parse: Converts the value of a line to a result. It raises `KeyError`,
            `TypeError` or `ValueError` if the value is not a result.
        header: The first line: the name of the format with its version, followed by
            the settings that the results depend on. `None` for a file without one.

    Attributes:
        results: The results that were in the file when it was opened.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If the file holds something else, a damaged line, or results of
            other settings. It is left unchanged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        parse: Callable[[dict[str, Any]], Result],
        header: dict[str, Any] | None = None,
    ) -> None:
        self._path = Path(path)
        self._parse = parse
        # The header as it is read back from JSON, where tuples are lists.
        self._header = json.loads(json.dumps(header))
        self._size = 0
        self.results: list[Result] = []
        if self._path.exists():
            for number, line in enumerate(self._complete_lines(), 1):
                self._read(number, line)
                self._size += len(line)
        if header is not None and not self._size:
            self.append(header)

    def append(self, values: dict[str, Any]) -> None:
        """Writes a line after the last complete one."""
        check_folder(self._path)
        line = _line(values)
        with self._path.open("r+b" if self._size else "wb") as file:
            file.seek(self._size)
            file.truncate()
            file.write(line)
        self._size += len(line)

    def _complete_lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line
                elif not self._size and not self._starts_record(line):
                    # Not written here, so it must not be overwritten either.
                    raise ValueError(self._not_a_record(1))

    def _starts_record(self, line: bytes) -> bool:
        """Returns whether an incomplete first line is the start of such a file."""
        if self._header is None:
            return line.startswith(b"{")
        return _line(self._header).startswith(line)

    def _read(self, number: int, line: bytes) -> None:
        try:
            values = json.loads(line)
            if number > 1 or self._header is None:
                self.results.append(self._parse(values))
                return
            # The first entry of a header names the format.
            if values.keys().isdisjoint(list(self._header)[:1]):
                raise KeyError
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(self._not_a_record(number)) from error
        differences = list(_differences(self._header, values))
        if differences:
            raise ValueError(
                f"{str(self._path)!r} holds results of other settings "
                f"({'; '.join(differences)}). Choose another file, or delete this one "
                "to start again."
            )

    def _not_a_record(self, number: int) -> str:
        remedy = "Choose another file or folder"
        if number > 1:
            remedy += ", or delete that line to compute its result again"
        return (
            f"Line {number} of {str(self._path)!r} is damaged or not a result of this "
            f"command. {remedy}."
        )


def _line(values: dict[str, Any]) -> bytes:
    return (json.dumps(values) + "\n").encode()


def _differences(expected: Any, received: Any, name: str = "") -> Iterator[str]:
    """Yields each setting that differs, with both values."""
    if isinstance(expected, dict) and isinstance(received, dict):
        for key in expected | received:
            inner = f"{name}.{key}" if name else key
            yield from _differences(expected.get(key), received.get(key), inner)
    elif expected != received:
        yield f"{name}: expected {_short(expected)}, received {_short(received)}"


def _short(value: Any) -> str:
    return printable(json.dumps(value), 60)
