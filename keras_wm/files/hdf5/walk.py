"""Every object of an HDF5 file that may be hostile, each visited once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import h5py

from keras_wm.errors import UnsafeFileError
from keras_wm.files.hdf5.file import BoundedFile
from keras_wm.files.limits import Limits
from keras_wm.utils.text import printable

_LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
_TWICE = -1
_LINKS = {
    h5py.h5l.TYPE_SOFT: "a soft link",
    h5py.h5l.TYPE_EXTERNAL: "an external link",
    _TWICE: "the name of two members of its group",
}
# Other filters make HDF5 search for native plug-ins and load them at the first read.
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
}


def walk(
    file: BoundedFile, limits: Limits, passed_over: Callable[[str], bool]
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """The groups and datasets of a file, by name.

    Args:
        file: The open file, whose listing ends with the walk.
        limits: What the file may ask of this machine.
        passed_over: Whether what is in the group of a path is not wanted.

    Yields:
        The path of an object, without a leading slash, and the object. Its
        storage has been vetted; a dataset's type and size have not.

    Raises:
        UnsafeFileError: If any object is linked or stored in a way that leads
            out of the file, or if there are too many.
    """
    yield from _Walk(limits, file, passed_over).within(file.id, "", 0)
    file.listed()


class _Walk:
    # At h5py's lower level: its `group[name]` takes several times as long.
    def __init__(
        self, limits: Limits, file: BoundedFile, passed_over: Callable[[str], bool]
    ) -> None:
        self._limits = limits
        self._passed_over = passed_over
        self._links = 0
        self._seen = {_address(file.id)}

    def within(
        self, group: h5py.h5g.GroupID, path: str, depth: int
    ) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
        if depth > self._limits.depth:
            raise UnsafeFileError(
                f"the group '{printable(path)}' is nested deeper than "
                f"Limits.depth={self._limits.depth}."
            )
        for name, link in self._links_of(group, path).items():
            where = _joined(path, name)
            child = _open(group, name, link, where, self._limits)
            # A hard link may lead back to a group above, or twice to each below.
            address = _address(child)
            if isinstance(child, h5py.h5t.TypeID) or address in self._seen:
                continue
            self._seen.add(address)
            if isinstance(child, h5py.h5g.GroupID):
                yield where, h5py.Group(child)
                if not self._passed_over(where):
                    yield from self.within(child, where, depth + 1)
            else:
                _vet_storage(child, where)
                yield where, h5py.Dataset(child, readonly=True)

    def _links_of(self, group: h5py.h5g.GroupID, path: str) -> dict[bytes, int]:
        """The names in a group and the types of their links, if not too many."""
        limits = self._limits
        most = min(limits.children, limits.objects - self._links)
        links: dict[bytes, int] = {}

        def add(name: bytes, link: h5py.h5l.LinkInfo) -> bool:
            again = name in links
            links[name] = _TWICE if again else link.type
            # A file may give one name of any length to all members of a group.
            return again or len(links) > most or len(name) > limits.name_chars

        group.links.iterate(add, info=True)
        # Links count, not objects: many links to one object take as much time.
        self._links += len(links)
        if len(links) > limits.children:
            raise UnsafeFileError(
                f"the group '{printable(path)}' has more members than "
                f"Limits.children={limits.children:,}."
            )
        if self._links > limits.objects:
            raise UnsafeFileError(
                f"the file has more objects than Limits.objects={limits.objects:,}."
            )
        return links


def _address(found: h5py.h5g.GroupID | h5py.h5d.DatasetID | h5py.h5t.TypeID) -> int:
    return int(h5py.h5o.get_info(found).addr)


def _joined(path: str, name: bytes) -> str:
    shown = name.decode("utf-8", "surrogateescape")
    return f"{path}/{shown}" if path else shown


def has_child(group: h5py.Group, name: str) -> bool:
    """Whether a group has a member of that name, wherever it leads."""
    # `name in group` would follow a link to see whether there is something behind it.
    return bool(group.id.links.exists(name.encode()))


def open_child(group: h5py.Group, name: str, limits: Limits) -> h5py.Group:
    """Opens a group in a group, if it is in the group itself.

    Args:
        group: The group.
        name: The name of the group in it, one component of a path.
        limits: What the file may ask of this machine.

    Returns:
        The group in the group.

    Raises:
        UnsafeFileError: If it is a link, or no group.
    """
    link = group.id.links.get_info(name.encode()).type
    child = _open(group.id, name.encode(), link, name, limits)
    if not isinstance(child, h5py.h5g.GroupID):
        raise _hostile(name, "is no group")
    return h5py.Group(child)


def _open(
    group: h5py.h5g.GroupID, name: bytes, link: int, path: str, limits: Limits
) -> h5py.h5g.GroupID | h5py.h5d.DatasetID | h5py.h5t.TypeID:
    """Opens a member of a group, if it is in the group itself.

    Asking for a longer path at once would not do: HDF5 follows the links on the way
    and tells about the last one only.
    """
    if (
        b"/" in name
        or name in (b"", b".", b"..")
        or not _is_text(name)
        or len(path) > limits.name_chars
    ):
        raise _nameless(path)
    if link != h5py.h5l.TYPE_HARD:
        raise _hostile(path, f"is {_LINKS.get(link, 'a user-defined link')}")
    return h5py.h5o.open(group, name)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _vet_storage(dataset: h5py.h5d.DatasetID, path: str) -> None:
    plan = dataset.get_create_plist()
    # h5py reads external storage silently, from any file that this process may
    # read. Even the shape of a virtual dataset may come from another file.
    if plan.get_external_count():
        raise _hostile(path, "keeps its data in another file (external storage)")
    if plan.get_layout() not in _LAYOUTS:
        raise _hostile(path, "is put together from other datasets (virtual)")
    filters = {plan.get_filter(index)[0] for index in range(plan.get_nfilters())}
    if not filters <= _FILTERS:
        raise UnsafeFileError(
            f"the dataset '{printable(path)}' needs HDF5 filter "
            f"{min(filters - _FILTERS)}, which could load native code. "
            "Repack the file without it: h5repack -f GZIP=1."
        )


def _nameless(path: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"the HDF5 name '{printable(path)}' is not one that Keras writes: "
        "do not use this file."
    )


def _hostile(path: str, does: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"'{printable(path)}' {does}. Keras writes no such file: do not use this one."
    )
