"""Finds the files of a scan, from files, folders, patterns and URLs."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_wm.errors import ModelFileError
from keras_wm.files import is_model_folder, shards_of, weights_files
from keras_wm.files.storage.location import locate_url
from keras_wm.utils.text import printable

Source = str | os.PathLike[str]
# The paths of the files and of the folders in a folder.
Entries = tuple[list[str], list[str]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file, or a folder, that is perhaps a model.

    Attributes:
        path: Path or URL of a file, or of a folder that is one model.
        named: Whether it is an error if this is not a model: the user named this very
            path, or it is a model of several files.
        problem: Reason why nothing can be read there, or an empty string.
        parts: Files that are read with it, if it is a folder or an index of shards.
    """

    path: str
    named: bool
    problem: str = ""
    parts: tuple[str, ...] = ()

    def stamp(self) -> str:
        """Returns a fingerprint (size and modification time) of local files.

        It is empty if it is not available.
        """
        try:
            stats = [Path(path).stat() for path in (self.path, *self.parts)]
        except (OSError, ValueError):
            return ""
        return " ".join(f"{stat.st_size}-{stat.st_mtime_ns}" for stat in stats)


def find_candidates(sources: Source | Iterable[Source]) -> list[Candidate]:
    """Finds the files that sources stand for.

    Args:
        sources: Paths and URLs of files and folders, and patterns with `*`, `?`, `[]`
            or, for any number of folders, `**`. Links to folders are not followed
            within a folder.

    Returns:
        A list of `Candidate`s without duplicates, those of a folder sorted.
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    by_path: dict[str, Candidate] = {}
    for source in sources:
        path = os.fspath(source)
        for candidate in _remote(path) if "://" in path else _local(path):
            by_path.setdefault(candidate.path, candidate)
    return list(by_path.values())


def _local(source: str) -> Iterator[Candidate]:
    paths = [source]
    is_pattern = glob.has_magic(source) and not os.path.lexists(source)
    if is_pattern:
        # Path.glob does not accept a pattern that starts with a slash.
        paths = sorted(glob.glob(source, recursive=True))  # noqa: PTH207
    found = {path: Path(path).is_dir() for path in paths}
    yield from _found(source, is_pattern, found, _local_entries)


def _remote(source: str) -> Iterator[Candidate]:
    try:
        place = locate_url(source)
        # A web server does not list its files, and a question mark in its URLs does
        # not make them patterns.
        if source.startswith(("http://", "https://")):
            yield Candidate(source, named=True)
            return
        yield from _in_file_system(source, place.system, place.path)
    except ModelFileError as error:
        yield Candidate(source, named=True, problem=str(error))


def _in_file_system(source: str, system: Any, path: str) -> Iterator[Candidate]:
    """Yields the files that a source stands for in an fsspec file system."""

    def url(inner: str) -> str:
        return str(system.unstrip_protocol(inner))

    def entries(folder: str) -> Entries:
        files: list[str] = []
        folders: list[str] = []
        own_path = system._strip_protocol(folder).rstrip("/")
        for entry in system.ls(folder, detail=True):
            # Object stores list a folder's own marker in it.
            if entry["name"].rstrip("/") != own_path:
                kind = folders if entry["type"] == "directory" else files
                kind.append(url(entry["name"]))
        return files, folders

    paths = {source: path}
    is_pattern = glob.has_magic(path) and not system.exists(path)
    if is_pattern:
        paths = {url(match): match for match in sorted(system.glob(path))}
    found = {name: system.isdir(inner) for name, inner in paths.items()}
    yield from _found(source, is_pattern, found, entries)


def _found(
    source: str,
    is_pattern: bool,
    found: dict[str, bool],
    entries: Callable[[str], Entries],
) -> Iterator[Candidate]:
    """Yields the files that a source stands for.

    For each path that matches the source, `found` says whether it is a folder.
    """
    if not found:
        yield Candidate(source, named=True, problem="nothing matches this pattern.")
    for path, is_folder in found.items():
        if is_folder:
            yield from _within(path, entries)
        else:
            yield Candidate(path, named=not is_pattern)


def _within(top: str, entries: Callable[[str], Entries]) -> Iterator[Candidate]:
    """Yields the files in a folder, and in the folders inside it."""
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
        yield from _models_in(folder, files)
        folders += sorted(inner, reverse=True)


def _models_in(folder: str, files: list[str]) -> Iterator[Candidate]:
    """Yields the files of a folder. Files of one model are one candidate."""
    by_name = {Path(path).name: path for path in sorted(files)}
    claimed: set[str] = set()
    if is_model_folder(by_name):
        parts = [by_name[name] for name in weights_files(by_name)]
        parts += [path for index in parts for path in _shards(index, by_name)]
        claimed.update(parts)
        yield Candidate(folder, named=True, parts=tuple(parts))
    for path in by_name.values():
        if path not in claimed and (shards := _shards(path, by_name)):
            claimed.update(shards, [path])
            yield Candidate(path, named=True, parts=tuple(shards))
    for path in by_name.values():
        if path not in claimed:
            yield Candidate(path, named=False)


def _shards(path: str, by_name: dict[str, str]) -> list[str]:
    """Returns the files that an index lists; none if the file is not an index."""
    if not path.endswith((".weights.json", ".index.json")):
        return []
    try:
        names = shards_of(path)
    except ModelFileError:  # The scan reads the index again, and reports the error.
        return []
    return [by_name[name] for name in sorted(names) if name in by_name]


def _local_entries(folder: str) -> Entries:
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            # No pipes, sockets or devices. Links to files are followed, because caches
            # of downloads consist of them.
            elif entry.is_file():
                files.append(entry.path)
    return files, folders
