"""A hostile HDF5 file, read so that HDF5 itself stays within the limits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import h5py
import numpy as np

from keras_wm.errors import UnsafeFileError
from keras_wm.files.limits import Limits, vet_limit
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.streams import Window
from keras_wm.utils.text import printable

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
NOT_FROM_KERAS = "Keras writes no such file: do not use this one."

# Size of the metadata cache. Almost nothing is read twice.
_CACHE_BYTES = 1024**2
_SIZES = (8, 8)
_VARIABLE_LENGTH = h5py.string_dtype()

# The global heap, which holds texts of variable length, consists of collections. A
# collection starts with its magic and its size, an object in it with its index and
# its size. Sizes have 8 bytes, because files with other sizes are rejected.
_COLLECTION_MAGIC = b"GCOL"
_COLLECTION = struct.Struct("<4s4xQ")
_OBJECT = struct.Struct("<H6xQ")
_MOST_OBJECTS = 10_000
# Bounds of a list of texts: HDF5 copies a text for every element that refers to it. It
# puts a text above this size into a collection of its own. Keras splits longer lists.
_TEXT_BYTES = 64 * 1024
_MOST_TEXTS = 4096


def is_hdf5(source: Source) -> bool:
    """Returns whether a file starts like an HDF5 file.

    HDF5 itself would also search for its magic bytes further back.
    """
    return source.head.startswith(HDF5_MAGIC)


def filters_of(dataset: h5py.h5d.DatasetID) -> list[int]:
    """Returns the numbers of a dataset's filters, in the order of writing."""
    creation = dataset.get_create_plist()
    return [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]


class BoundedFile(h5py.File):
    """An HDF5 file with a budget of bytes that are read while its arrays are listed.

    A single attribute, list of names or header can be as large as the file. HDF5
    reads it as a whole, and can read it again for every object that refers to it.

    Args:
        source: The open file.

    Attributes:
        source: The open file, with the limits on the resources that it can use.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._stream = _VettedStream(source)
        super().__init__(cast(BinaryIO, self._stream), "r")
        if self.id.get_create_plist().get_sizes() != _SIZES:
            raise UnsafeFileError(
                f"its addresses or lengths do not have 8 bytes. {NOT_FROM_KERAS}"
            )
        # By default, HDF5 caches 32 MB of metadata, which take several times as much
        # memory.
        cache = self.id.get_mdc_config()
        cache.set_initial_size = True
        cache.initial_size = cache.min_size = cache.max_size = _CACHE_BYTES
        self.id.set_mdc_config(cache)

    def end_listing(self) -> None:
        """Ends the listing: any number of bytes can be read from now on."""
        self._stream.budget = None

    @contextmanager
    def short_texts(self) -> Iterator[None]:
        """Makes a text of variable length an error if it is too long for a list."""
        self._stream.text_bytes = _TEXT_BYTES
        try:
            yield
        finally:
            self._stream.text_bytes = None

    @contextmanager
    def listing(self) -> Iterator[None]:
        """Applies the budget again, to read metadata after the listing has ended."""
        self._stream.budget = self.source.limits.listing_bytes
        try:
            yield
        finally:
            self.end_listing()


class _VettedStream(Window):
    """The whole file as HDF5 reads it; heap collections are vetted during listing."""

    # Most bytes of an object in a collection.
    text_bytes: int | None = None

    def __init__(self, source: Source) -> None:
        budget = source.limits.listing_bytes
        over_budget = (
            f"to list it, more than Limits.listing_bytes={budget:,} bytes are read."
        )
        super().__init__(source.file, 0, source.size, budget, over_budget)

    def _bytes(self, start: int, stop: int) -> bytes:
        data = super()._bytes(start, stop)
        # The bytes of an array can contain the magic by chance, but arrays are not
        # read during listing.
        if self.budget is not None and data.startswith(_COLLECTION_MAGIC):
            _vet_collection(self._file, start, self.text_bytes)
        return data


def _vet_collection(file: BinaryIO, start: int, text_bytes: int | None) -> None:
    """Raises UnsafeFileError if HDF5 would search a heap collection endlessly.

    Or if a text in it has more than `text_bytes`.

    HDF5 steps through a collection object by object. It never returns if an object
    has size zero, which takes a single flipped byte.
    """
    file.seek(start)
    header = file.read(_COLLECTION.size)
    if len(header) < _COLLECTION.size:
        return
    _, size = _COLLECTION.unpack(header)
    position, end = start + _COLLECTION.size, start + size
    for _ in range(_MOST_OBJECTS):
        if position + _OBJECT.size > end:
            return
        file.seek(position)
        header = file.read(_OBJECT.size)
        # HDF5 itself detects that the file ends too early.
        if len(header) < _OBJECT.size:
            return
        index, length = _OBJECT.unpack(header)
        # Free space has index 0, and its length includes the header. The data of any
        # other object follow its header and are padded to multiples of 8 bytes.
        step = _OBJECT.size + -(-length // 8) * 8 if index else length
        if index and text_bytes is not None and length > text_bytes:
            raise UnsafeFileError(
                f"a text in a list has {length:,} bytes. {NOT_FROM_KERAS}"
            )
        if not 0 < step <= end - position:
            break
        position += step
    raise UnsafeFileError(
        "its texts of variable length are stored in a way that HDF5 might search "
        f"without end. {NOT_FROM_KERAS}"
    )


def read_text_attribute(
    holder: h5py.Group | h5py.Dataset,
    name: str,
    limits: Limits,
    limit: str = "name_chars",
) -> str | None:
    """Reads a text attribute.

    Args:
        holder: Group or dataset that has the attribute.
        name: Name of the attribute.
        limits: Limits on the resources that the file can use.
        limit: Name of the field of `limits` that bounds the length of the text.

    Returns:
        The text, or `None` if there is no such attribute or it is not a single text.

    Raises:
        UnsafeFileError: If the text is too long.
    """
    if not h5py.h5a.exists(holder.id, name.encode()):
        return None
    attribute = h5py.h5a.open(holder.id, name.encode())
    stored = attribute.get_type()
    # The elements of an array could all refer to the same long text. The size of a
    # single text of variable length is unknown before it is read, but it is not
    # larger than the file.
    if attribute.get_space().get_simple_extent_type() != h5py.h5s.SCALAR:
        return None
    if stored.get_class() != h5py.h5t.STRING:
        return None
    problem = f"the attribute {name!r} of '{printable(holder.name)}' is longer"
    fixed_bytes = 0 if stored.is_variable_str() else stored.get_size()
    vet_limit(limits, limit, fixed_bytes, problem)
    # `holder.attrs[name]` takes several times as long.
    array = np.empty((), f"S{fixed_bytes}" if fixed_bytes else _VARIABLE_LENGTH)
    attribute.read(array)
    text: bytes | str = array.item()
    vet_limit(limits, limit, len(text), problem)
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def read_text_list(
    file: BoundedFile, holder: h5py.Group, name: str, limits: Limits
) -> list[str]:
    """Reads a list of texts from an attribute, or from several, as Keras writes it.

    Keras splits a long list into attributes `name0`, `name1` and so on.

    Args:
        file: The file, while it is listed.
        holder: Group that has the attributes.
        name: Name of the list.
        limits: Limits on the resources that the file can use.

    Returns:
        The texts; none if there is no such list.

    Raises:
        UnsafeFileError: If the list is too long.
    """
    if h5py.h5a.exists(holder.id, name.encode()):
        return _read_texts(file, holder, name, limits)
    texts: list[str] = []
    number = 0
    while h5py.h5a.exists(holder.id, f"{name}{number}".encode()):
        texts += _read_texts(file, holder, f"{name}{number}", limits)
        number += 1
        problem = f"the list {name!r} of '{printable(holder.name)}' has more texts"
        vet_limit(limits, "objects", len(texts), problem)
    return texts


def _read_texts(
    file: BoundedFile, holder: h5py.Group, name: str, limits: Limits
) -> list[str]:
    attribute = h5py.h5a.open(holder.id, name.encode())
    stored, shape = attribute.get_type(), attribute.shape
    is_list = attribute.get_space().get_simple_extent_type() == h5py.h5s.SIMPLE
    if not is_list or len(shape) != 1 or stored.get_class() != h5py.h5t.STRING:
        return []
    size = 0 if stored.is_variable_str() else stored.get_size()
    if shape[0] > _MOST_TEXTS or size > limits.name_chars:
        raise UnsafeFileError(
            f"the list {name!r} of '{printable(holder.name)}' is longer than Keras "
            "makes it: do not use this file."
        )
    array = np.empty(shape, f"S{size}" if size else _VARIABLE_LENGTH)
    with file.short_texts():
        attribute.read(array)
    return [
        text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text
        for text in array.tolist()
    ]
