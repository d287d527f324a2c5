"""A model that is spread over several files, read as one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files.contents import Contents, Kernel, no_config
from keras_wm.files.formats.keras3 import weights_of_keras3
from keras_wm.files.formats.safetensors import weights_of_safetensors
from keras_wm.files.formats.safetensors_header import has_header, read_header
from keras_wm.files.formats.shard import Shard
from keras_wm.files.formats.shard_index import names_in_index
from keras_wm.files.formats.unrecognised import unrecognised
from keras_wm.files.hdf5.file import HDF5_MAGIC, BoundedFile
from keras_wm.files.limits import Limits
from keras_wm.files.storage.source import Source, naming_errors
from keras_wm.utils.text import printable


def recognise(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """The weights of the files that an index names, if the file is an index.

    See `hdf5_file.recognise` for the arguments.
    """
    names = names_in_index(source)
    if names is None:
        return None
    if source.bundle is None:
        raise UnsupportedFileError(
            "it is the index of a model in several files, and the others cannot be "
            "found from an open file. Pass the path of the index."
        )
    shards = {}
    for name in names:
        with naming_errors(name):
            shards[name] = source.bundle.open(name)
            if not _is_hdf5(shards[name]) and not has_header(shards[name]):
                raise unrecognised(shards[name])
    if all(map(_is_hdf5, shards.values())):
        weights = _of_hdf5(shards, source.limits, stack, config)
        return Contents("sharded Keras weights (.weights.json)", weights)
    if all(map(has_header, shards.values())):
        return Contents("sharded safetensors", _of_safetensors(shards, source.limits))
    raise ModelFileError("some of its shards are HDF5 files, and some safetensors.")


def _is_hdf5(source: Source) -> bool:
    return source.head.startswith(HDF5_MAGIC)


def _of_hdf5(
    sources: dict[str, Source],
    limits: Limits,
    stack: ExitStack,
    config: Callable[[], Any],
) -> list[Kernel]:
    shards = []
    for name, source in sources.items():
        with naming_errors(name):
            file = stack.enter_context(BoundedFile(source))
        shards.append(Shard(file, source.size, limits, name))
    return weights_of_keras3(shards, limits, config) or []


def _of_safetensors(sources: dict[str, Source], limits: Limits) -> list[Kernel]:
    weights: list[Kernel] = []
    seen: set[str] = set()
    for name, source in sources.items():
        with naming_errors(name):
            arrays = read_header(source)
            again = seen.intersection(array.path for array in arrays)
            if again:
                raise UnsafeFileError(
                    f"array '{printable(min(again))}' is in another shard, too."
                )
            seen.update(array.path for array in arrays)
            if len(seen) > limits.arrays:
                raise UnsafeFileError(
                    f"the shards have more arrays together than "
                    f"Limits.arrays={limits.arrays:,}."
                )
        weights += [
            replace(weight, path=f"{name}/{weight.path}")
            for weight in weights_of_safetensors(arrays, limits)
        ]
    return weights
