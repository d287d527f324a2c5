"""What was derived from keys, kept for the next kernel of the same shape."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

# Of one array that is kept, and of all together, in bytes.
LARGEST = 32 * 2**20
_ALL = 256 * 2**20

_kept: LRUCache[Hashable, NDArray[Any]] = LRUCache(_ALL, getsizeof=lambda a: a.nbytes)
_lock = threading.Lock()


def remembered(
    name: Hashable, derive: Callable[[], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """An array that was derived before, or is derived now; read-only.

    Args:
        name: What the array is: two arrays of one name are equal.
        derive: Derives it.

    Returns:
        The array.
    """
    with _lock:
        if name in _kept:
            return _kept[name]
    array = read_only(derive())
    if array.nbytes <= LARGEST:
        with _lock:
            _kept[name] = array
    return array


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, which nobody can change any more."""
    array.flags.writeable = False
    return array
