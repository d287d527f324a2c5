"""The records of runs: JSON lines, one for each run that is finished."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from keras_wm._version import __version__
from keras_wm.utils.records import whole_lines

Figures = dict[str, Any]
Row = dict[str, Any]


class Records:
    """A file with what each run of a study was, and what it gave.

    Args:
        path: Where the file is, or goes.

    Raises:
        ValueError: If the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        self._whole = 0
        if path.exists():
            self._read()

    def _read(self) -> None:
        for number, line in enumerate(whole_lines(self.path), 1):
            try:
                record = json.loads(line)
                self._found[_identity(record)] = record
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"Line {number} of {str(self.path)!r} is no record of an "
                    "experiment. Choose another folder with --out."
                ) from error
            self._whole += len(line)

    def find(self, experiment: str, labels: Figures, host: Figures) -> Row | None:
        """A run's labels and figures together; `None` if it is not finished."""
        described = {"experiment": experiment, "labels": labels, "host": host}
        record = self._found.get(_identity(described))
        if record is None:
            return None
        return {**record["labels"], **record["figures"], "seconds": record["seconds"]}

    def add(
        self,
        experiment: str,
        labels: Figures,
        host: Figures,
        figures: Figures,
        seconds: float,
    ) -> None:
        """Writes what a run gave, behind the last whole line of the file."""
        record = {
            "experiment": experiment,
            "labels": labels,
            "host": host,
            "figures": figures,
            "seconds": round(seconds, 1),
            "versions": _versions(),
        }
        line = (json.dumps(record) + "\n").encode()
        with self.path.open("ab") as file:
            file.truncate(self._whole)
            file.write(line)
        self._whole += len(line)
        self._found[_identity(record)] = record


def _identity(record: dict[str, Any]) -> str:
    parts = (record["experiment"], record["labels"], record["host"])
    return json.dumps(parts, sort_keys=True)


def _versions() -> dict[str, str]:
    return {
        "keras_wm": __version__,
        "keras": keras.__version__,
        "backend": f"{keras.backend.backend()} {_backend_version()}",
        "python": platform.python_version(),
    }


def _backend_version() -> str:
    return version(keras.backend.backend())
