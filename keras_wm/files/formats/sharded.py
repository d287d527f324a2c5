"""Models that are split into several files, and the index that names these shards.

Keras writes `x.weights.json` next to `x_00000.weights.h5` and so on. The Hugging Face
Hub has `model.safetensors.index.json` next to `model-00001-of-00002.safetensors`.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files.contents import Contents, Kernel, ReadConfig, Stored
from keras_wm.files.formats.keras3 import weights_of_keras3
from keras_wm.files.formats.safetensors import (
    has_header,
    read_header,
    weights_of_safetensors,
)
from keras_wm.files.formats.unrecognised import unrecognised
from keras_wm.files.hdf5.file import BoundedFile, is_hdf5
from keras_wm.files.limits import DEFAULT_LIMITS, Limits, vet_limit
from keras_wm.files.storage.source import Source, naming_errors, open_path
from keras_wm.files.storage.untrusted_json import parse_json
from keras_wm.utils.text import printable

_MAP = "weight_map"
_FIRST_KEYS = (b'"metadata"', b'"weight_map"')
# A shard with one of these in its name could be outside the folder of the index.
_FORBIDDEN = ("/", "\\", ":", "\0")


def shards_of(
    path: str | os.PathLike[str], limits: Limits | None = None
) -> frozenset[str]:
    """Returns the names of the files that belong to an index of shards.

    Args:
        path: Path or URL of a file.
        limits: Limits on the resources that the file can use; the defaults of `Limits`
            if `None`.

    Returns:
        The names of the shards, which are in the same folder; none if the file is
        not an index.

    Raises:
        ModelFileError: If the file cannot be read.
        UnsafeFileError: If it is an index that names files outside its folder.
    """
    path = os.fspath(path)
    with ExitStack() as stack, naming_errors(path):
        source = open_path(path, limits or DEFAULT_LIMITS, stack)
        if not isinstance(source, Source):
            return frozenset()
        return frozenset(_shards_in(_read_index(source) or {}, source.limits))


def recognise(source: Source, stack: ExitStack, config: ReadConfig) -> Contents | None:
    """Returns the contents of the shards, if the file is an index of shards.

    See `hdf5_weights.recognise` for the arguments.
    """
    index = _read_index(source)
    if index is None:
        return None
    names = _shards_in(index, source.limits)
    if source.bundle is None:
        raise UnsupportedFileError(
            "it is the index of a model in several files, and the others cannot be "
            "found from an open file. Pass the path of the index."
        )
    shards = {}
    for name in names:
        with naming_errors(name):
            shards[name] = source.bundle.open(name)
            if not is_hdf5(shards[name]) and not has_header(shards[name]):
                raise unrecognised(shards[name])
    if all(map(is_hdf5, shards.values())):
        files = {}
        for name, shard in shards.items():
            with naming_errors(name):
                files[name] = stack.enter_context(BoundedFile(shard))
        name = "sharded Keras weights (.weights.json)"

        def is_listed(shard: str, owner: str) -> bool:
            listed = index.get(owner) or index.get(
                f"/{owner}/vars" if owner else "/vars"
            )
            return shard in (listed if isinstance(listed, list) else [listed])

        contents = weights_of_keras3(files, source.limits, config, is_listed)
        return replace(contents, format=name) if contents else Contents(name, [])
    if all(map(has_header, shards.values())):
        weights, arrays = _weights_of_safetensors(shards, source.limits)
        return Contents("sharded safetensors", weights, arrays=lambda: arrays)
    raise ModelFileError(
        "some of its shards are HDF5 files, and others are safetensors."
    )


def _read_index(source: Source) -> dict[str, Any] | None:
    """Returns the map of weights to shards, or `None` for another file."""
    limits, start = source.limits, source.head.lstrip()
    if not start.startswith(b"{") or not any(key in start for key in _FIRST_KEYS):
        return None
    problem = f"an index of {source.size:,} bytes, more"
    vet_limit(limits, "config_bytes", source.size, problem)
    shards_by_weight = parse_json(source.file.read(), limits).get(_MAP)
    return shards_by_weight if isinstance(shards_by_weight, dict) else None


def _shards_in(index: dict[str, Any], limits: Limits) -> list[str]:
    """Returns the sorted names of the shards in a map of weights to shards."""
    names: set[str] = set()
    for shards in index.values():
        # A group of weights can begin in one shard and end in the next.
        for name in shards if isinstance(shards, list) else [shards]:
            _vet_name(name, limits)
            names.add(name)
    vet_limit(limits, "shards", len(names), f"it lists {len(names):,} shards, more")
    return sorted(names)


def _vet_name(name: Any, limits: Limits) -> None:
    if (
        not isinstance(name, str)
        or len(name) > limits.name_chars
        or name in ("", ".", "..")
        or any(character in name for character in _FORBIDDEN)
    ):
        raise UnsafeFileError(
            f"the shard '{printable(str(name))}' is not the name of a file in the "
            "folder of the index. Keras writes no such index: do not use it."
        )


def _weights_of_safetensors(
    sources: dict[str, Source], limits: Limits
) -> tuple[list[Kernel], list[Stored]]:
    weights: list[Kernel] = []
    listed: list[Stored] = []
    names: set[str] = set()
    for shard, source in sources.items():
        with naming_errors(shard):
            arrays = read_header(source)
            duplicates = names.intersection(array.path for array in arrays)
            if duplicates:
                raise UnsafeFileError(
                    f"array '{printable(min(duplicates))}' is in another shard, too."
                )
            names.update(array.path for array in arrays)
            problem = "the shards have more arrays together"
            vet_limit(limits, "arrays", len(names), problem)
        listed += arrays
        weights += [
            replace(weight, path=f"{shard}/{weight.path}")
            for weight in weights_of_safetensors(arrays, limits)
        ]
    return weights, listed
