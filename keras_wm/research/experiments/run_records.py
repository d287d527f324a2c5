"""The records of runs: JSON lines, one for each run that is finished."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from keras_wm._version import __version__
from keras_wm.utils.records import RecordFile

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
        self._file = RecordFile(path, _checked)
        self._runs = {_identity(record): record for record in self._file.results}

    def find(self, experiment: str, labels: Figures, host: Figures) -> Row | None:
        """A run's labels and figures together; `None` if it is not finished."""
        described = {"experiment": experiment, "labels": labels, "host": host}
        record = self._runs.get(_identity(described))
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
        self._file.append(record)
        self._runs[_identity(record)] = record


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """Raises an error that `RecordFile` explains if a run's identity is missing."""
    _identity(record)
    return record


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
