"""Which files of a folder make up one model together."""

from __future__ import annotations

from collections.abc import Sequence


def files_of_models(folder: str, files: Sequence[str]) -> dict[str, set[str]]:
    """The models that several files of a folder make up.

    Args:
        folder: The folder's path or URL.
        files: The paths of the files in it.

    Returns:
        For each model what to open, the folder itself or an index, and the files that
        are read with it.
    """
    return {}
