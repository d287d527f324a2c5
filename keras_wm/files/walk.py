"""Every object of an HDF5 file that may be hostile, each visited once."""

from __future__ import annotations

from collections.abc import Iterator

import h5py

from keras_wm.errors import UnsafeFileError
from keras_wm.files.kernel import printable
from keras_wm.files.limits import Limits

_LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
_LINKS = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "an external link"}
# Other filters make HDF5 search for native plug-ins and load them at the first read.
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE,
    h5py.h5z.FILTER_SHUFFLE,
    h5py.h5z.FILTER_FLETCHER32,
}


def walk(
    file: h5py.File, limits: Limits
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Every group and dataset of a file, in the file's order.

    Args:
        file: The open file.
        limits: What the file may ask of this machine.

    Yields:
        The path of an object, without a leading slash, and the object. Its
        storage has been vetted; a dataset's type and size have not.

    Raises:
        UnsafeFileError: If any object is linked or stored in a way that leads
            out of the file, or if there are too many.
    """
    yield from _Walk(limits, file).within(file, "", 0)


class _Walk:
    def __init__(self, limits: Limits, file: h5py.File) -> None:
        self._limits = limits
        self._seen = {_address(file)}

    def within(
        self, group: h5py.Group, path: str, depth: int
    ) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
        self._check_counts(group, path, depth)
        for name in group:
            where = f"{path}/{name}" if path else str(name)
            child = open_child(group, name, where, self._limits)
            # A hard link may lead back to a group above, or twice to each below.
            if isinstance(child, h5py.Datatype) or _address(child) in self._seen:
                continue
            self._seen.add(_address(child))
            if isinstance(child, h5py.Dataset):
                _vet_storage(child, where)
            yield where, child
            if isinstance(child, h5py.Group):
                yield from self.within(child, where, depth + 1)

    def _check_counts(self, group: h5py.Group, path: str, depth: int) -> None:
        limits = self._limits
        if depth > limits.depth:
            raise UnsafeFileError(
                f"the group '{printable(path)}' is nested deeper than "
                f"Limits.depth={limits.depth}."
            )
        if len(group) > limits.children:
            raise UnsafeFileError(
                f"the group '{printable(path)}' has {len(group):,} members, more than "
                f"Limits.children={limits.children:,}."
            )
        if len(self._seen) > limits.objects:
            raise UnsafeFileError(
                f"the file has more objects than Limits.objects={limits.objects:,}."
            )


def _address(found: h5py.Group | h5py.Dataset) -> int:
    return int(h5py.h5o.get_info(found.id).addr)


def has_child(group: h5py.Group, name: str) -> bool:
    """Whether a group has a member of that name, wherever it leads."""
    # `name in group` would follow a link to see whether there is something behind it.
    return bool(group.id.links.exists(name.encode()))


def open_child(
    group: h5py.Group, name: str | bytes, path: str, limits: Limits
) -> h5py.Group | h5py.Dataset | h5py.Datatype:
    """Opens a member of a group, if it is in the group itself.

    Asking for a longer path at once would not do: HDF5 follows the links on the way
    and tells about the last one only.

    Args:
        group: The group.
        name: The member's name, one component of a path.
        path: The path so far, for the error message.
        limits: What the file may ask of this machine.

    Returns:
        The member.

    Raises:
        UnsafeFileError: If it is a link, or its name is no name.
    """
    # h5py gives a name that it cannot decode as bytes.
    if (
        not isinstance(name, str)
        or "/" in name
        or name in ("", ".", "..")
        or len(name) > limits.name_chars
    ):
        raise UnsafeFileError(
            f"the HDF5 name '{printable(path)}' is not one that Keras writes: "
            "do not use this file."
        )
    link = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
    if link != h5py.h5l.TYPE_HARD:
        raise _hostile(path, f"is {_LINKS.get(link, 'a user-defined link')}")
    return group[name]


def _vet_storage(dataset: h5py.Dataset, path: str) -> None:
    plan = dataset.id.get_create_plist()
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


def _hostile(path: str, does: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"'{printable(path)}' {does}. Keras writes no such file: do not use this one."
    )
