"""Records of the runs of a study: a JSON line for each finished run."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from keras_wm._version import __version__
from keras_wm.utils.records import RecordFile

Labels = dict[str, Any]
Measurements = dict[str, Any]
# The labels and the measurements of a run together.
Row = dict[str, Any]


class Records:
    """The record file of a study.

    A run is identified by its experiment, its labels and its host: the settings that
    the networks depend on.

    Args:
        path: The file. A missing one is started with the first finished run.

    Raises:
        ValueError: If the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._file = RecordFile(path, lambda record: (_identity(record), record))
        self._runs = dict(self._file.results)

    def find(self, experiment: str, labels: Labels, host: dict[str, Any]) -> Row | None:
        """Returns the labels and measurements of a run, or `None` if not finished."""
        record = self._runs.get(
            _identity({"experiment": experiment, "labels": labels, "host": host})
        )
        if record is None:
            return None
        return {**record["labels"], **record["figures"], "seconds": record["seconds"]}

    def add(
        self,
        experiment: str,
        labels: Labels,
        host: dict[str, Any],
        measured: Measurements,
        seconds: float,
    ) -> None:
        """Appends a finished run to the file."""
        record = {
            "experiment": experiment,
            "labels": labels,
            "host": host,
            "figures": measured,
            "seconds": round(seconds, 1),
            "versions": _versions(),
        }
        self._file.append(record)
        self._runs[_identity(record)] = record


def _identity(record: dict[str, Any]) -> str:
    parts = (record["experiment"], record["labels"], record["host"])
    return json.dumps(parts, sort_keys=True)


def _versions() -> dict[str, str]:
    backend = keras.backend.backend()
    return {
        "keras_wm": __version__,
        "keras": keras.__version__,
        "backend": f"{backend} {version(backend)}",
        "python": platform.python_version(),
    }
