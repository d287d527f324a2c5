"""The keys that are alive in this process, found again by their commitment."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from keras_wm.scheme.key import WatermarkKey

# By `id` and not by commitment: of two objects of one key, one can outlive the other.
_LIVE_KEYS: WeakValueDictionary[int, WatermarkKey] = WeakValueDictionary()


def register(key: WatermarkKey) -> None:
    """Remembers a key for as long as somebody else holds it."""
    _LIVE_KEYS[id(key)] = key


def find_live_key(commitment: str) -> WatermarkKey | None:
    """Returns a live key that has this commitment, in any slot, or `None`.

    An opened key is never returned. It cannot be moved to another slot, and whoever
    wrote its file chose its commitment.
    """
    live = list(_LIVE_KEYS.values())
    matches = (key for key in live if key.commitment == commitment and not key.opened)
    return next(matches, None)
