"""Sends the settings of a scan, with its keys, to another process of the same owner.

A `WatermarkKey` cannot be pickled, so that no secret gets into a file by accident. This
module is the only exception: it sends keys to the workers of a scan, through a pipe or
to a cluster that the owner trusts. Nothing is written to a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from keras_wm.files import Limits
from keras_wm.scanning.examiner import ScanSettings
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.key_file import payload_from_json, payload_to_json
from keras_wm.utils.child_process import Message


def pack(settings: ScanSettings) -> Message:
    """Returns the settings as plain JSON values, which contain the keys' secrets."""
    keys = [(payload_to_json(key.payload()), key.slot) for key in settings.keys]
    return {
        "keys": keys,
        "layer": settings.layer,
        "limits": asdict(settings.limits),
        "slots": settings.slots,
    }


def unpack(message: Message) -> ScanSettings:
    """Returns the settings that `pack` converted."""
    keys = [
        WatermarkKey.from_payload(payload_from_json(text)).in_slot(slot)
        for text, slot in message["keys"]
    ]
    limits = Limits(**message["limits"])
    return ScanSettings(keys, message["layer"], limits, message["slots"])


class PackedSettings:
    """Settings that can be pickled, and whose secrets no log or error message shows.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: ScanSettings) -> None:
        self.settings = settings

    def __reduce__(self) -> tuple[Callable[[Message], PackedSettings], tuple[Any]]:
        return _unpacked, (pack(self.settings),)


def _unpacked(message: Message) -> PackedSettings:
    return PackedSettings(unpack(message))
