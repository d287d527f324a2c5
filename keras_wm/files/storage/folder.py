"""The files of a folder, and a path opened as a file or as a folder."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property

from keras_wm.errors import UnsupportedFileError
from keras_wm.files.limits import Limits
from keras_wm.files.storage.location import Place, find_place
from keras_wm.files.storage.source import Source, as_source, vet_size


class Folder:
    """A folder, as a bundle of files.

    Args:
        place: Where it is.
        limits: What a file may ask of this machine.
        stack: Closes what is opened.
    """

    def __init__(self, place: Place, limits: Limits, stack: ExitStack) -> None:
        self.limits = limits
        self._place = place
        self._stack = stack

    @cached_property
    def names(self) -> list[str]:
        """The names in the folder, in order."""
        return sorted(self._place.names())

    def open(self, name: str, most: int | None = None) -> Source:
        """Opens a file of the folder; see `Bundle.open`."""
        member = self._place.member(name)
        if member.is_folder():
            raise UnsupportedFileError("it is a folder, where a file is expected.")
        source = _open_file(member, self, self.limits, self._stack)
        if most is not None:
            vet_size(name, source.size, most)
        return source


def open_path(path: str, limits: Limits, stack: ExitStack) -> Source | Folder:
    """Opens a path or, where it contains `"://"`, a URL.

    Args:
        path: The path or URL.
        limits: What the file may ask of this machine.
        stack: Closes what is opened.

    Returns:
        The open file, or the folder.

    Raises:
        ModelFileError: If it does not exist or cannot be opened.
        UnsafeFileError: If it is a FIFO, a socket or a device.
    """
    place = find_place(path)
    if place.is_folder():
        return Folder(place, limits, stack)
    beside = Folder(place.parent(), limits, stack)
    return _open_file(place, beside, limits, stack)


def _open_file(
    place: Place, beside: Folder, limits: Limits, stack: ExitStack
) -> Source:
    return as_source(stack.enter_context(place.open()), limits, beside)
