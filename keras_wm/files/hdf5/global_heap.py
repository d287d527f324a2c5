"""Where HDF5 keeps texts of variable length, vetted before HDF5 searches it.

HDF5 goes through a collection of such texts object by object, and for ever where one
has no size: a flipped byte is enough.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from keras_wm.errors import UnsafeFileError

MAGIC = b"GCOL"

# With lengths of 8 bytes, which all files have that are read here.
_COLLECTION = struct.Struct("<4s4xQ")
_OBJECT = struct.Struct("<H6xQ")
_MOST_OBJECTS = 10_000


def vet_global_heap(file: BinaryIO, start: int) -> None:
    """Refuses a collection that HDF5 would search without end.

    Args:
        file: The file.
        start: Where the collection starts in it.

    Raises:
        UnsafeFileError: If an object in it has no size, or one beyond the
            collection, or if there are too many.
    """
    file.seek(start)
    head = file.read(_COLLECTION.size)
    if len(head) < _COLLECTION.size:
        return
    _, size = _COLLECTION.unpack(head)
    place, end = start + _COLLECTION.size, start + size
    for _ in range(_MOST_OBJECTS):
        if place + _OBJECT.size > end:
            return
        file.seek(place)
        head = file.read(_OBJECT.size)
        # HDF5 itself finds out that the file ends too early.
        if len(head) < _OBJECT.size:
            return
        index, length = _OBJECT.unpack(head)
        # The size of free space, which has no index, is with its header.
        taken = _OBJECT.size + -(-length // 8) * 8 if index else length
        if not 0 < taken <= end - place:
            break
        place += taken
    raise UnsafeFileError(
        "its texts of variable length are stored in a way that HDF5 might search "
        "without end. Keras writes no such file: do not use this one."
    )
