"""Cache of arrays that are derived from keys."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any

from cachetools import LRUCache
from numpy.typing import NDArray

from keras_wm.utils.arrays import Floats

# A larger array is derived again each time, so that one kernel of gigabytes does not
# empty the cache.
MAX_ARRAY_BYTES = 32 * 2**20
_MAX_TOTAL_BYTES = 256 * 2**20

_cache: LRUCache[Hashable, Floats] = LRUCache(
    _MAX_TOTAL_BYTES, getsizeof=lambda array: array.nbytes
)
_lock = threading.Lock()


def cached(name: Hashable, derive: Callable[[], Floats]) -> Floats:
    """Returns an array from the cache, or derives it.

    Args:
        name: Name of the array. It must determine the array's values.
        derive: Function that derives the array.

    Returns:
        The array, read-only.
    """
    with _lock:
        if name in _cache:
            return _cache[name]
    array = read_only(derive())
    if array.nbytes <= MAX_ARRAY_BYTES:
        with _lock:
            _cache[name] = array
    return array


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the same array, made read-only."""
    array.flags.writeable = False
    return array
