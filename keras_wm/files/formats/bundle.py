"""Folders and archives that contain one model: its weights are found by their names.

Keras writes such an archive (`.keras`) or, unzipped, such a folder. A preset of
KerasHub and a model in the Hugging Face Hub are such folders, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from keras_wm.errors import ModelFileError
from keras_wm.files.contents import Contents, Kernel, no_config
from keras_wm.files.formats import hdf5_weights, safetensors, sharded
from keras_wm.files.formats.unrecognised import unrecognised, unrecognised_archive
from keras_wm.files.hdf5.file import is_hdf5
from keras_wm.files.storage.source import Bundle, Source, naming_errors
from keras_wm.files.storage.untrusted_json import parse_json
from keras_wm.files.storage.zip_archive import ZIP_MAGIC, Archive

# The formats of a single file, which can be in a folder or in an archive.
_FORMATS = (hdf5_weights.recognise, safetensors.recognise, sharded.recognise)
_CONFIG = "config.json"
# The weights of a preset's task are next to those of its backbone.
_CONFIGS = {"model": _CONFIG, "task": "task.json"}
_ENDINGS = (
    ".weights.h5",
    ".weights.json",
    ".safetensors",
    ".safetensors.index.json",
)
# Names of files with weights, and of the config that belongs to each.
_WEIGHTS = {
    f"{part}{ending}": config
    for part, config in _CONFIGS.items()
    for ending in _ENDINGS
}


def is_model_folder(names: Collection[str]) -> bool:
    """Returns whether a folder is one model: an unzipped `.keras` file or a preset.

    Such a folder, and not the files in it, is the model to pass to `open_model_file`.

    Args:
        names: The names in the folder.
    """
    return _CONFIG in names and bool(weights_files(names))


def weights_files(names: Collection[str]) -> list[str]:
    """Returns the names in a folder or archive that are files of a model's weights."""
    return [name for name in _WEIGHTS if name in names]


def recognise(bundle: Bundle, stack: ExitStack) -> Contents | None:
    """Returns the contents of a folder or archive, if it is one model.

    Args:
        bundle: The folder or archive.
        stack: Closes the opened files.

    Returns:
        The contents, or `None` if the bundle is not a model.
    """
    files = weights_files(bundle.names)
    if not files:
        return None
    weights = {file: _list_weights(bundle, file, stack) for file in files}
    return Contents(
        f"model folder ({', '.join(files)})",
        weights[files[0]] if len(files) == 1 else _disambiguated(weights),
        partial(_read_config, bundle, _WEIGHTS[files[0]]),
    )


def recognise_archive(source: Source, stack: ExitStack) -> Contents | None:
    """Returns the contents of a zip archive, or `None` if the file is not one.

    See `recognise` for the arguments.

    Raises:
        UnsupportedFileError: If the archive is not a model.
    """
    if not source.head.startswith(ZIP_MAGIC):
        return None
    archive = Archive(source, stack)
    if not weights_files(archive.names):
        raise unrecognised_archive(archive.names)
    archive.vet()
    contents = recognise(archive, stack)
    return contents and replace(contents, format="Keras archive (.keras)")


def recognise_weights(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """Returns the contents of a single file; see `hdf5_weights.recognise`."""
    for recognise_format in _FORMATS:
        contents = recognise_format(source, stack, config)
        if contents is not None:
            return contents
    return None


def _list_weights(bundle: Bundle, name: str, stack: ExitStack) -> list[Kernel]:
    """Lists the weights in one file of a bundle."""
    config = partial(_read_config, bundle, _WEIGHTS[name])
    with naming_errors(name):
        source = bundle.open(name)
        contents = recognise_weights(source, stack, config)
        if contents is not None:
            return contents.weights
        # Keras writes an HDF5 file also for a model without weights.
        if is_hdf5(source):
            return []
        raise unrecognised(source)


def _read_config(bundle: Bundle, name: str) -> Any:
    """Returns the model's config, or `None` if it is missing or damaged.

    A damaged config is not an error, because the weights can be read without it.
    """
    if name not in bundle.names:
        return None
    source = bundle.open(name, bundle.limits.config_bytes)
    try:
        return parse_json(source.file.read(), bundle.limits)
    except ModelFileError:
        return None


def _disambiguated(weights_by_file: dict[str, list[Kernel]]) -> list[Kernel]:
    """Returns all weights; names that several files contain are preceded by the file's.

    Args:
        weights_by_file: The weights by the names of their files.
    """
    files_with_name = Counter(
        name
        for weights in weights_by_file.values()
        for name in {weight.name for weight in weights}
    )
    return [
        replace(
            weight,
            path=f"{file}/{weight.path}",
            layer=weight.layer
            if files_with_name[weight.name] == 1
            else f"{file}/{weight.layer}",
        )
        for file, weights in weights_by_file.items()
        for weight in weights
    ]
