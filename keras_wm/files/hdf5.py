"""Walking an HDF5 file that may be hostile, and reading one array of it.

h5py follows links into other files, reads external storage and virtual arrays from
wherever they point, loads native code for filters it does not know, and allocates what
a header declares. None of that can be switched off, so each is looked for first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import IO, Any

import h5py
import numpy as np
from h5py import h5d, h5o, h5z
from numpy.typing import NDArray

from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files.limits import Limits

_LZF = 32000
_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, _LZF}
_LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}
_RANK = 8


@contextmanager
def damage_is_an_error(name: str) -> Iterator[None]:
    """Turns whatever a damaged file makes a library raise into one error."""
    try:
        yield
    except ModelFileError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"{name!r} is damaged or truncated: {type(error).__name__}: {reason!r}"
        ) from error


def open_hdf5(stream: IO[bytes], name: str) -> h5py.File:
    """Opens an HDF5 file from a stream, for reading."""
    with damage_is_an_error(name):
        return h5py.File(stream, "r")


class SafeFile:
    """An HDF5 file of which only what is harmless is handed out.

    Args:
        file: The open file.
        name: What to call it in errors.
        limits: What it may ask for.
    """

    def __init__(self, file: h5py.File, name: str, limits: Limits) -> None:
        self._file, self._name, self._limits = file, name, limits

    def arrays(
        self, path: str = "", skipped: frozenset[str] = frozenset()
    ) -> Iterator[tuple[str, h5py.Dataset]]:
        """All arrays below a group that could be a kernel, with their paths.

        Args:
            path: The group.
            skipped: Names of groups that are passed over, wherever they stand.

        Raises:
            UnsafeFileError: If something on the way is not what an honest writer
                leaves: a link, an array whose bytes are elsewhere, an endless tree.
        """
        with damage_is_an_error(self._name):
            root = self.group(path) if path else self._file
            yield from self._walk(root, path, skipped, set(), 0)

    def group(self, path: str) -> h5py.Group:
        """A group by its path, each component of which is a hard link."""
        item = self._file
        for part in path.split("/"):
            item = self._child(item, part, path)
        return item

    def names(self, path: str) -> list[str]:
        """The names in a group; none if it is not there."""
        with damage_is_an_error(self._name):
            item: Any = self._file
            for part in filter(None, path.split("/")):
                if part not in item:
                    return []
                item = self._child(item, part, path)
            return list(item) if isinstance(item, h5py.Group) else []

    def text_attribute(self, path: str, attribute: str) -> str | None:
        """A text attribute of a group; `None` if it has none."""
        with damage_is_an_error(self._name):
            return text_attribute(self.group(path) if path else self._file, attribute)

    def has_attribute(self, path: str, attribute: str) -> bool:
        """Whether a group has an attribute, whatever it holds."""
        with damage_is_an_error(self._name):
            item = self.group(path) if path else self._file
            return bool(h5py.h5a.exists(item.id, attribute.encode()))

    def _walk(
        self,
        group: h5py.Group,
        path: str,
        skipped: frozenset[str],
        seen: set[int],
        depth: int,
    ) -> Iterator[tuple[str, h5py.Dataset]]:
        limits = self._limits
        self._refuse(depth > limits.depth, path, "groups are nested without end")
        self._refuse(len(group) + len(seen) > limits.objects, path, "too many objects")
        for name in group:
            if name in skipped:
                continue
            where = f"{path}/{name}" if path else name
            child = self._child(group, name, where)
            # A tree may hold one group under many names, or within itself.
            address = h5o.get_info(child.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(child, h5py.Group):
                yield from self._walk(child, where, skipped, seen, depth + 1)
            elif isinstance(child, h5py.Dataset) and self._is_kernel(child, where):
                yield where, child

    def _child(self, group: h5py.Group, name: str, path: str) -> Any:
        # For a path of several components h5py tells the kind of the last link only.
        link = group.get(name, getlink=True)
        self._refuse(
            not isinstance(link, h5py.HardLink), path, "a link leads elsewhere"
        )
        return group[name]

    def _is_kernel(self, array: h5py.Dataset, path: str) -> bool:
        """Whether an array is of floats and of rank 2 or more; refuses unsafe ones."""
        plan = array.id.get_create_plist()
        self._refuse(
            plan.get_external_count() > 0, path, "its bytes are in another file"
        )
        self._refuse(
            plan.get_layout() not in _LAYOUTS, path, "it is a virtual array of others"
        )
        filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
        self._refuse(
            not filters <= _FILTERS, path, "it needs native code to be unpacked"
        )
        shape = array.shape
        return (
            shape is not None and 2 <= len(shape) <= _RANK and dtype_name(array) != ""
        )

    def read(self, array: h5py.Dataset, path: str) -> NDArray[np.floating[Any]]:
        """Reads one array, as floats of 32 or 64 bits."""
        with damage_is_an_error(self._name):
            self._check_size(array, path)
            values: NDArray[Any] = array[()]
            if dtype_name(array) == "bfloat16":
                # The upper half of a float32's bits.
                bits = values.view(np.uint16).astype(np.uint32) << 16
                return np.asarray(bits.view(np.float32))
            precision = np.float64 if values.dtype.itemsize > 4 else np.float32
            return np.asarray(values, dtype=precision)

    def _check_size(self, array: h5py.Dataset, path: str) -> None:
        declared = prod(array.shape) * array.dtype.itemsize
        stored = array.id.get_storage_size()
        chunk = prod(array.chunks or ()) * array.dtype.itemsize
        most = self._limits.array_bytes
        self._refuse(
            max(declared, chunk) > most,
            path,
            f"it has {max(declared, chunk)} bytes, the limit is {most}",
        )
        if array.chunks is None:
            lies, ratio = declared != stored, 1
        else:
            ratio = self._limits.inflation
            lies = declared > ratio * stored
        self._refuse(
            lies, path, f"it declares {declared} bytes where {stored} are stored"
        )

    def _refuse(self, condition: bool, path: str, why: str) -> None:
        if condition:
            raise UnsafeFileError(
                f"{self._name!r} is refused at {path!r}: {why}. A file that Keras "
                "wrote holds nothing of the kind; ask its publisher for one."
            )


def dtype_name(array: h5py.Dataset) -> str:
    """The name of an array's float type, or an empty string if it has another."""
    kind = array.dtype
    if kind.kind == "f" and kind.itemsize in (2, 4, 8):
        return str(kind.newbyteorder("=").name)
    if kind.kind == "V" and kind.itemsize == 2 and kind.names is None:
        return "bfloat16" if text_attribute(array, "dtype") == "bfloat16" else ""
    return ""


def text_attribute(item: Any, attribute: str) -> str | None:
    """A scalar text attribute; `None` where there is none, or it is something else."""
    if not h5py.h5a.exists(item.id, attribute.encode()):
        return None
    handle = h5py.h5a.open(item.id, attribute.encode())
    is_text = handle.get_type().get_class() == h5py.h5t.STRING
    if handle.shape != () or not is_text:
        return None
    value = item.attrs[attribute]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
