"""Model files of all formats, and folders and archives that contain one model.

Keras writes such an archive (`.keras`) or, unzipped, such a folder. A preset of
KerasHub and a model in the Hugging Face Hub are such folders, too. The files with
weights are found by their names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from keras_wm.files.config.layer_classes import is_model
from keras_wm.files.config.usage import is_config
from keras_wm.files.contents import (
    Contents,
    Kernel,
    ReadConfig,
    no_arrays,
    no_config,
)
from keras_wm.files.formats import hdf5_weights, safetensors, sharded
from keras_wm.files.formats.unrecognised import (
    unrecognised,
    unrecognised_archive,
    unrecognised_folder,
)
from keras_wm.files.hdf5.file import is_hdf5
from keras_wm.files.storage.source import Bundle, Folder, Source, naming_errors
from keras_wm.files.storage.untrusted_json import parse_config
from keras_wm.files.storage.zip_archive import ZIP_MAGIC, Archive

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


_IGNORED = "Keras does not load this file of the model"


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


def read_contents(opened: Source | Folder, stack: ExitStack) -> Contents:
    """Lists the contents of a model file or folder.

    Args:
        opened: The open file, or the folder.
        stack: Closes the opened files.

    Raises:
        UnsupportedFileError: If it is not a model, or its format is unknown.
    """
    if isinstance(opened, Folder):
        if not weights_files(opened.names):
            raise unrecognised_folder(opened.names)
        return _contents_of_bundle(opened, stack)
    if opened.head.startswith(ZIP_MAGIC):
        archive = Archive(opened, stack)
        if not weights_files(archive.names):
            raise unrecognised_archive(archive.names)
        archive.vet()
        contents = _contents_of_bundle(archive, stack)
        return replace(contents, format="Keras archive (.keras)")
    weights = _recognise(opened, stack, no_config)
    if weights is None:
        raise unrecognised(opened)
    return weights


def _contents_of_bundle(bundle: Bundle, stack: ExitStack) -> Contents:
    """Lists the contents of a folder or archive that contains weights files."""
    files = weights_files(bundle.names)
    contents = {file: _list_contents(bundle, file, stack) for file in files}
    if len(files) > 1:
        contents = _used_by_keras(bundle, contents)
    weights = {file: content.weights for file, content in contents.items()}
    classes = {name for content in contents.values() for name in content.custom_classes}
    return Contents(
        f"model folder ({', '.join(files)})",
        weights[files[0]] if len(files) == 1 else _disambiguated(weights),
        partial(_read_config, bundle, _WEIGHTS[files[0]]),
        lambda: [array for part in contents.values() for array in part.arrays()],
        has_config=all(content.has_config for content in contents.values()),
        custom_classes=tuple(sorted(classes)),
    )


def _used_by_keras(
    bundle: Bundle, contents: dict[str, Contents]
) -> dict[str, Contents]:
    """Returns the contents of several files, with the weights that Keras ignores.

    Only KerasHub reads a second file, that of a task, and its models are of classes of
    its own.
    """
    if not is_model(_read_config(bundle, _CONFIG)):
        return contents
    first, *others = contents
    return {first: contents[first]} | {
        file: replace(
            contents[file],
            weights=[
                replace(weight, unused=_IGNORED) for weight in contents[file].weights
            ],
            arrays=no_arrays,
            has_config=True,
        )
        for file in others
    }


def _recognise(source: Source, stack: ExitStack, config: ReadConfig) -> Contents | None:
    """Returns the contents of a single file; see `hdf5_weights.recognise`."""
    for recognise in (hdf5_weights.recognise, safetensors.recognise, sharded.recognise):
        contents = recognise(source, stack, config)
        if contents is not None:
            return contents
    return None


def _list_contents(bundle: Bundle, name: str, stack: ExitStack) -> Contents:
    """Lists the contents of one file of a bundle."""
    config = partial(_read_config, bundle, _WEIGHTS[name])
    with naming_errors(name):
        source = bundle.open(name)
        contents = _recognise(source, stack, config)
        if contents is not None:
            return contents
        # Keras writes an HDF5 file also for a model without weights.
        if is_hdf5(source):
            return Contents("model without weights", [], has_config=is_config(config()))
        raise unrecognised(source)


def _read_config(bundle: Bundle, name: str) -> Any:
    """Returns the model's config, or `None` if it is missing or damaged."""
    if name not in bundle.names:
        return None
    source = bundle.open(name, bundle.limits.config_bytes)
    return parse_config(source.file.read(), bundle.limits)


def _disambiguated(weights_by_file: dict[str, list[Kernel]]) -> list[Kernel]:
    """Returns all weights; a name in several files is preceded by the file's name."""
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
