"""Visiting every object of a hostile HDF5 file once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import h5py

from keras_wm.errors import UnsafeFileError
from keras_wm.files.hdf5.file import NOT_FROM_KERAS, BoundedFile, filters_of
from keras_wm.files.limits import Limits, vet_limit
from keras_wm.utils.text import printable

_LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
_DUPLICATE = -1
_LINKS = {
    h5py.h5l.TYPE_SOFT: "a soft link",
    h5py.h5l.TYPE_EXTERNAL: "an external link",
    _DUPLICATE: "the name of two members of its group",
}
# For any other filter, HDF5 searches for a native plug-in and loads it on first read.
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
}


def walk(
    file: BoundedFile, skip: Callable[[str], bool]
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Walks through the groups and datasets of a file, in the order of their names.

    Args:
        file: The open file. Its listing ends with the walk.
        skip: Returns whether to skip the members of the group at a path.

    Yields:
        The path of an object, without a leading slash, and the object. The storage
        of a dataset has been vetted; its type and size have not.

    Raises:
        UnsafeFileError: If a link or the storage of a dataset leads out of the file,
            or if there are too many objects.
    """
    yield from _Walk(file, skip).members(file.id, "", 0)
    file.end_listing()


class _Walk:
    # Uses h5py's low-level API, because `group[name]` takes several times as long.
    def __init__(self, file: BoundedFile, skip: Callable[[str], bool]) -> None:
        self._limits = file.source.limits
        self._skip = skip
        self._links = 0
        self._seen = {_address(file.id)}

    def members(
        self, group: h5py.h5g.GroupID, path: str, depth: int
    ) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
        problem = f"the group '{printable(path)}' is nested deeper"
        vet_limit(self._limits, "depth", depth, problem)
        for name, link in self._links_of(group, path).items():
            text = name.decode("utf-8", "surrogateescape")
            child_path = f"{path}/{text}" if path else text
            child = _open(group, name, link, child_path, self._limits)
            # A hard link can lead back to a parent group, and two hard links to one
            # group on each of n levels make 2 ** n paths.
            address = _address(child)
            if isinstance(child, h5py.h5t.TypeID) or address in self._seen:
                continue
            self._seen.add(address)
            if isinstance(child, h5py.h5g.GroupID):
                yield child_path, h5py.Group(child)
                if not self._skip(child_path):
                    yield from self.members(child, child_path, depth + 1)
            else:
                _vet_storage(child, child_path)
                yield child_path, h5py.Dataset(child, readonly=True)

    def _links_of(self, group: h5py.h5g.GroupID, path: str) -> dict[bytes, int]:
        """Returns the type of every link in a group by name, if not too many."""
        limits = self._limits
        most = min(limits.children, limits.objects - self._links)
        links: dict[bytes, int] = {}

        def add(name: bytes, link: h5py.h5l.LinkInfo) -> bool:
            duplicate = name in links
            links[name] = _DUPLICATE if duplicate else link.type
            # True stops the iteration. A file can give all members of a group the same
            # name, of any length, so that counting different names is not enough.
            return duplicate or len(links) > most or len(name) > limits.name_chars

        group.links.iterate(add, info=True)
        # Count links rather than objects: many links to one object take as much time
        # as many objects.
        self._links += len(links)
        problem = f"the group '{printable(path)}' has more members"
        vet_limit(limits, "children", len(links), problem)
        vet_limit(limits, "objects", self._links, "the file has more objects")
        return links


def _address(item: h5py.h5g.GroupID | h5py.h5d.DatasetID | h5py.h5t.TypeID) -> int:
    return int(h5py.h5o.get_info(item).addr)


def has_child(group: h5py.Group, name: str) -> bool:
    """Returns whether a group has a member of that name, which can be any link."""
    # `name in group` would follow the link to see whether its target exists.
    return bool(group.id.links.exists(name.encode()))


def open_child(group: h5py.Group, name: str, limits: Limits) -> h5py.Group:
    """Opens a group in a group without following soft or external links.

    Args:
        group: The parent group.
        name: Name of the child group, a single component of a path.
        limits: Limits on the resources that the file can use.

    Raises:
        UnsafeFileError: If the member is a link or not a group.
    """
    link = group.id.links.get_info(name.encode()).type
    child = _open(group.id, name.encode(), link, name, limits)
    if not isinstance(child, h5py.h5g.GroupID):
        raise _unsafe(name, "is not a group")
    return h5py.Group(child)


def _open(
    group: h5py.h5g.GroupID, name: bytes, link: int, path: str, limits: Limits
) -> h5py.h5g.GroupID | h5py.h5d.DatasetID | h5py.h5t.TypeID:
    """Opens a member of a group, if its name is valid and it is a hard link.

    Paths have to be opened one component at a time: given a longer path, HDF5 follows
    every link on the way, and the link type is known only for the last component.
    """
    if (
        b"/" in name
        or name in (b"", b".", b"..")
        or name.decode(errors="ignore").encode() != name  # Not UTF-8.
        or len(path) > limits.name_chars
    ):
        raise UnsafeFileError(
            f"the HDF5 name '{printable(path)}' is not one that Keras writes: "
            "do not use this file."
        )
    if link != h5py.h5l.TYPE_HARD:
        raise _unsafe(path, f"is {_LINKS.get(link, 'a user-defined link')}")
    return h5py.h5o.open(group, name)


def _vet_storage(dataset: h5py.h5d.DatasetID, path: str) -> None:
    creation = dataset.get_create_plist()
    # h5py silently reads external storage from any file that this process can read.
    # Even the shape of a virtual dataset can come from another file.
    if creation.get_external_count():
        raise _unsafe(path, "keeps its data in another file (external storage)")
    if creation.get_layout() not in _LAYOUTS:
        raise _unsafe(path, "is put together from other datasets (virtual)")
    unknown = set(filters_of(dataset)) - _FILTERS
    if unknown:
        raise UnsafeFileError(
            f"the dataset '{printable(path)}' needs HDF5 filter "
            f"{min(unknown)}, which could load native code. "
            "Repack the file without it: h5repack -f GZIP=1."
        )


def _unsafe(path: str, problem: str) -> UnsafeFileError:
    return UnsafeFileError(f"'{printable(path)}' {problem}. {NOT_FROM_KERAS}")
