"""Sends keys to another process of the same owner.

A `WatermarkKey` cannot be pickled, so that no secret gets into a file by accident. This
module is the only exception: it sends keys to the workers of a scan, through a pipe or
to a cluster that the owner trusts. Nothing is written to a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.key_file import payload_from_json, payload_to_json


def pack(keys: Sequence[WatermarkKey]) -> list[str]:
    """Returns the keys as texts, which contain their secrets."""
    return [payload_to_json(key.payload()) for key in keys]


def unpack(texts: Sequence[str]) -> list[WatermarkKey]:
    """Returns the keys that `pack` converted to texts."""
    return [WatermarkKey.from_payload(payload_from_json(text)) for text in texts]


class PackedKeys:
    """Keys that can be pickled, and whose secrets no log or error message shows.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: Sequence[WatermarkKey]) -> None:
        self.keys = list(keys)

    def __repr__(self) -> str:
        return f"PackedKeys({self.keys!r})"

    def __reduce__(self) -> tuple[Callable[[Sequence[str]], PackedKeys], tuple[Any]]:
        return _unpack_keys, (pack(self.keys),)


def _unpack_keys(texts: Sequence[str]) -> PackedKeys:
    return PackedKeys(unpack(texts))
