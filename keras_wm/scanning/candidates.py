"""From files, folders, patterns and URLs to the files that may be models."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_wm.errors import ModelFileError
from keras_wm.files import file_system, files_of_models
from keras_wm.files.kernel import printable

Source = str | os.PathLike[str]
# The paths of the files and of the folders in a folder.
Entries = tuple[list[str], list[str]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Where a model file may be.

    Attributes:
        path: The path or URL of a file, or of a folder that is one model.
        named: Whether the user named it, not a folder or a pattern that it is in.
            Only then is it a failure that it turns out to be no model.
        problem: Why nothing can be read there, or an empty string.
    """

    path: str
    named: bool
    problem: str = ""

    def stamp(self) -> str:
        """What changes when a local file does; empty where that cannot be told."""
        try:
            found = Path(self.path).stat()
        except (OSError, ValueError):
            return ""
        return f"{found.st_size}-{found.st_mtime_ns}"


def find_candidates(sources: Source | Iterable[Source]) -> list[Candidate]:
    """The files that sources stand for, each once, those of a folder in order.

    Args:
        sources: Paths and URLs of files and folders, and patterns with `*`, `?`, `[]`
            or, for any number of folders, `**`. Links to folders are not followed
            within a folder.

    Returns:
        A list of `Candidate`.
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    found: dict[str, Candidate] = {}
    for source in sources:
        path = os.fspath(source)
        for candidate in _remote(path) if "://" in path else _local(path):
            found.setdefault(candidate.path, candidate)
    return list(found.values())


def _local(source: str) -> Iterator[Candidate]:
    if glob.has_magic(source) and not os.path.lexists(source):
        # Path.glob takes no pattern that starts with a slash.
        matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
        yield from _matching(source, matches, _is_local_folder, _local_entries)
    elif _is_local_folder(source):
        yield from _within(source, _local_entries)
    else:
        yield Candidate(source, named=True)


def _remote(source: str) -> Iterator[Candidate]:
    try:
        system, path = file_system(source)
        # A server of files says nothing about what else it has, and a question mark
        # in its URLs is no pattern.
        if source.startswith(("http://", "https://")):
            yield Candidate(source, named=True)
            return
        yield from _in_file_system(source, system, path)
    except ModelFileError as error:
        yield Candidate(source, named=True, problem=str(error))


def _in_file_system(source: str, system: Any, path: str) -> Iterator[Candidate]:
    def url(inner: str) -> str:
        return str(system.unstrip_protocol(inner))

    def entries(folder: str) -> Entries:
        listed = system.ls(folder, detail=True)
        kinds: Entries = ([], [])
        for one in listed:
            # Stores of objects list a folder's own marker in it.
            if one["name"].rstrip("/") != system._strip_protocol(folder).rstrip("/"):
                kinds[one["type"] == "directory"].append(url(one["name"]))
        return kinds

    if glob.has_magic(path) and not system.exists(path):
        matches = [url(match) for match in sorted(system.glob(path))]
        yield from _matching(source, matches, system.isdir, entries)
    elif system.isdir(path):
        yield from _within(source, entries)
    else:
        yield Candidate(source, named=True)


def _matching(
    source: str,
    matches: list[str],
    is_folder: Callable[[str], bool],
    entries: Callable[[str], Entries],
) -> Iterator[Candidate]:
    if not matches:
        yield Candidate(source, named=True, problem="nothing matches this pattern.")
    for match in matches:
        if is_folder(match):
            yield from _within(match, entries)
        else:
            yield Candidate(match, named=False)


def _within(top: str, entries: Callable[[str], Entries]) -> Iterator[Candidate]:
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            files, inner = entries(folder)
        except Exception as error:  # Each file system raises its own.
            reason = printable(str(error))
            problem = f"the folder cannot be listed: {reason}"
            yield Candidate(folder, named=True, problem=problem)
            continue
        models = files_of_models(folder, files)
        for model in models:
            yield Candidate(model, named=False)
        parts = {part for claimed in models.values() for part in claimed}
        for path in sorted(set(files) - parts - set(models)):
            yield Candidate(path, named=False)
        folders += sorted(inner, reverse=True)


def _is_local_folder(path: str) -> bool:
    return Path(path).is_dir()


def _local_entries(folder: str) -> Entries:
    kinds: Entries = ([], [])
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                kinds[1].append(entry.path)
            # No pipes, sockets or devices. A link to a file is followed: a cache of
            # downloads is made of them.
            elif entry.is_file():
                kinds[0].append(entry.path)
    return kinds
