"""The keys that are alive in this process, found again by their commitment."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

# The index is `id`. Two objects can have the same commitment, and with that as the
# index, the end of one object would remove the other one.
# `Any` is a `WatermarkKey`, whose module imports this one.
_LIVE_KEYS: WeakValueDictionary[int, Any] = WeakValueDictionary()


def register(key: Any) -> None:
    """Remembers a key for as long as somebody else holds it."""
    _LIVE_KEYS[id(key)] = key


def live_keys() -> list[Any]:
    """Returns all keys that are alive."""
    return list(_LIVE_KEYS.values())
