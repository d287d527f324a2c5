"""Files with a value of JSON in each line, which a killed writer may leave torn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that were written whole: up to the first that was not."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line
