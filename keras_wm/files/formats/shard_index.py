"""The index of a model whose weights are spread over files beside it.

Keras writes `x.weights.json` beside `x_00000.weights.h5` and so on; the Hugging Face
Hub has `model.safetensors.index.json` beside `model-00001-of-00002.safetensors`.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from keras_wm.errors import UnsafeFileError
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.files.storage.source import Source, naming_errors, open_path
from keras_wm.files.storage.untrusted_json import parse_json
from keras_wm.utils.text import printable

_MAP = "weight_map"
_FIRST_KEYS = (b'"metadata"', b'"weight_map"')
_FORBIDDEN = ("/", "\\", ":", "\0")


def shards_of(
    path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS
) -> frozenset[str]:
    """The names of the files that belong to an index of shards.

    Args:
        path: Path or URL of a file in the same folder.
        limits: What the file may ask of this machine.

    Returns:
        The names; none where the file is no such index.

    Raises:
        ModelFileError: If the file cannot be read.
        UnsafeFileError: If it is an index that leads out of its folder.
    """
    path = os.fspath(path)
    with ExitStack() as stack, naming_errors(path):
        found = open_path(path, limits, stack)
        names = names_in_index(found) if isinstance(found, Source) else None
        return frozenset(names or ())


def names_in_index(source: Source) -> list[str] | None:
    """The names of the shards that an index lists.

    Args:
        source: The open file.

    Returns:
        The names, in order, each of a file in the same folder; `None` where the
        file is no index.

    Raises:
        UnsafeFileError: If a name is not one of a file in the same folder, or there
            are too many, or the index is too large.
    """
    limits, start = source.limits, source.head.lstrip()
    if not start.startswith(b"{") or not any(key in start for key in _FIRST_KEYS):
        return None
    if source.size > limits.config_bytes:
        raise UnsafeFileError(
            f"an index of {source.size:,} bytes, more than "
            f"Limits.config_bytes={limits.config_bytes:,}."
        )
    shards_by_weight = parse_json(source.file.read(), limits).get(_MAP)
    if not isinstance(shards_by_weight, dict):
        return None
    names: set[str] = set()
    for shards in shards_by_weight.values():
        # A group of weights may begin in one shard and end in the next.
        for name in shards if isinstance(shards, list) else [shards]:
            _vet_name(name, limits)
            names.add(name)
    if len(names) > limits.shards:
        raise UnsafeFileError(
            f"it lists {len(names):,} shards, more than Limits.shards={limits.shards}."
        )
    return sorted(names)


def _vet_name(name: Any, limits: Limits) -> None:
    if (
        not isinstance(name, str)
        or len(name) > limits.name_chars
        or name in ("", ".", "..")
        or any(character in name for character in _FORBIDDEN)
    ):
        raise UnsafeFileError(
            f"the shard '{printable(str(name))}' is not the name of a file beside the "
            "index. Keras writes no such index: do not use it."
        )
