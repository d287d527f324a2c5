"""From files, folders, patterns and URLs to the files that may be models."""

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
    """Where a model file may be.

    Attributes:
        path: The path or URL of a file, or of a folder that is one model.
        named: Whether the user named it, not a folder or a pattern that it is in, or
            it is made of several files as only models are. Only then is it a failure
            that it turns out to be no model.
        problem: Why nothing can be read there, or an empty string.
        parts: The files that are read with it, if it is a folder or an index.
    """

    path: str
    named: bool
    problem: str = ""
    parts: tuple[str, ...] = ()

    def stamp(self) -> str:
        """What changes when a local file does; empty where that cannot be told."""
        try:
            found = [Path(path).stat() for path in (self.path, *self.parts)]
        except (OSError, ValueError):
            return ""
        return " ".join(f"{one.st_size}-{one.st_mtime_ns}" for one in found)


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
        place = locate_url(source)
        # A server of files says nothing about what else it has, and a question mark
        # in its URLs is no pattern.
        if source.startswith(("http://", "https://")):
            yield Candidate(source, named=True)
            return
        yield from _in_file_system(source, place.system, place.path)
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
        yield from _models_in(folder, files)
        folders += sorted(inner, reverse=True)


def _is_local_folder(path: str) -> bool:
    return Path(path).is_dir()


def _models_in(folder: str, files: list[str]) -> Iterator[Candidate]:
    """The files of a folder, those that make up one model together as one."""
    by_name = {_name(path): path for path in sorted(files)}
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
    """The files beside an index that it lists; none where it is no index."""
    if not path.endswith((".weights.json", ".index.json")):
        return []
    try:
        names = shards_of(path)
    except ModelFileError:  # Which the scan will find, too.
        return []
    return [by_name[name] for name in sorted(names) if name in by_name]


def _name(path: str) -> str:
    return path.replace(os.sep, "/").rpartition("/")[2]


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
