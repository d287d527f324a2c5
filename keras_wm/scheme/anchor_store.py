"""The anchors of a key, and the file beside the key file that holds them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_wm.errors import KeyFileError
from keras_wm.scheme.anchor import Anchor
from keras_wm.scheme.key_file import checksum, write_private

FORMAT = "keras_wm anchors"
VERSION = 1
SUFFIX = ".anchors"
# Each of a few thousand slots has an anchor of about 100 kB.
_MAX_BYTES = 512 * 2**20


class AnchorStore:
    """The anchors of a key by slot. All copies of the key share it.

    A mark that was trained through an anchor is only found with this anchor. So each
    anchor is written to a file as soon as it is added, if the key has a file.

    Args:
        commitment: Commitment of the key.
        anchors: Anchors by slot. Defaults to none.
    """

    def __init__(
        self, commitment: str, anchors: Mapping[int, Anchor] | None = None
    ) -> None:
        self._commitment = commitment
        self._anchors = dict(anchors or {})
        self._key_path: str | None = None

    def get(self, slot: int) -> Anchor | None:
        """Returns the anchor of a slot, or `None`."""
        return self._anchors.get(slot)

    @property
    def end(self) -> int:
        """The number after the last slot that has an anchor; 0 if none has."""
        return max(self._anchors, default=-1) + 1

    def add(self, slot: int, anchor: Anchor) -> None:
        """Adds an anchor, and writes it to the key's file of anchors.

        Raises:
            ValueError: If the slot has another anchor.
            OSError: If the file cannot be written.
        """
        self._merge({slot: anchor})
        if self._key_path is not None:
            self.keep_beside(self._key_path)

    def replaced(self, slot: int, anchor: Anchor | None) -> AnchorStore:
        """Returns a store without a file that differs in one slot."""
        others = {key: value for key, value in self._anchors.items() if key != slot}
        own = {} if anchor is None else {slot: anchor}
        return AnchorStore(self._commitment, others | own)

    def for_key(self, commitment: str) -> AnchorStore:
        """Returns the same anchors without a file, for another key."""
        return AnchorStore(commitment, self._anchors)

    def read_beside(self, key_path: str | os.PathLike[str]) -> dict[int, Anchor]:
        """Adds the anchors from the file beside a key file, and returns them.

        If there is no such file, it adds none and returns an empty dict.

        Raises:
            KeyFileError: If the file is damaged, is not one of this key, or has another
                anchor in one of the slots.
        """
        path = _beside(key_path)
        if not path.exists():
            return {}
        try:
            stored = _read(path, self._commitment)
            self._merge(stored)
        except ValueError as error:
            raise KeyFileError(f"{str(path)!r}: {error}") from error
        return stored

    def keep_beside(self, key_path: str | os.PathLike[str]) -> None:
        """Keeps the anchors in a file beside a key file from now on.

        Raises:
            KeyFileError: As `read_beside`.
        """
        if self.read_beside(key_path) != self._anchors:
            _write(_beside(key_path), self._commitment, self._anchors)
        self._key_path = os.fspath(key_path)

    def _merge(self, anchors: Mapping[int, Anchor]) -> None:
        for slot, anchor in anchors.items():
            if self._anchors.setdefault(slot, anchor) != anchor:
                raise ValueError(
                    f"Slot {slot} of the key {self._commitment[:8]} has another "
                    "anchor. A mark is only found with the anchor that it was trained "
                    "through, so none is replaced. Use another slot."
                )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnchorStore) and self._anchors == other._anchors

    def __hash__(self) -> int:
        return hash(self._commitment)


def _beside(key_path: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(key_path)}{SUFFIX}")


def _write(path: Path, commitment: str, anchors: Mapping[int, Anchor]) -> None:
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "commitment": commitment,
        "anchors": {str(slot): anchors[slot].payload() for slot in sorted(anchors)},
    }
    content["checksum"] = checksum(content)
    write_private(path, content, overwrite=True)


def _read(path: Path, commitment: str) -> dict[int, Anchor]:
    """Returns the anchors in a file, by slot.

    Raises:
        ValueError: If the file is damaged, or is not one of this key.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError("this file is too large for anchors.")
    try:
        content = json.loads(path.read_bytes())
        expected = content.pop("checksum")
        is_whole = expected == checksum(content) and content["version"] == VERSION
        if not is_whole or content["format"] != FORMAT:
            raise ValueError("its checksum, format or version is another one")
        payloads = {int(slot): part for slot, part in content["anchors"].items()}
        owner = content["commitment"]
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            "this is not a file of anchors, or was changed after it was written "
            f"({error}). Restore it from a copy."
        ) from error
    if owner != commitment:
        raise ValueError(
            f"expected the anchors of the key {commitment[:8]}. Received: those of "
            f"another key, {str(owner)[:8]!r}. Move this file away."
        )
    return {slot: Anchor.from_payload(part) for slot, part in payloads.items()}
