"""The weights of one model in a folder or an archive, found by their names.

That is what Keras makes of a `.keras` file, zipped or not, KerasHub of a preset and
the Hugging Face Hub of a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from keras_wm.errors import ModelFileError
from keras_wm.files.contents import Contents, Kernel
from keras_wm.files.formats.unrecognised import unrecognised, unrecognised_archive
from keras_wm.files.hdf5.file import HDF5_MAGIC
from keras_wm.files.storage.source import Bundle, Source, naming_errors
from keras_wm.files.storage.untrusted_json import parse_json
from keras_wm.files.storage.zip_archive import ZIP_MAGIC, Archive

# Returns the contents of one file of a bundle, if its format is known. The arguments
# are those of `hdf5_weights.recognise`.
RecogniseWeights = Callable[[Source, ExitStack, Callable[[], Any]], Contents | None]

_CONFIG = "config.json"
_CONFIGS = {"model": _CONFIG, "task": "task.json"}
_ENDINGS = (
    ".weights.h5",
    ".weights.json",
    ".safetensors",
    ".safetensors.index.json",
)
_WEIGHTS = {
    f"{part}{ending}": config
    for part, config in _CONFIGS.items()
    for ending in _ENDINGS
}


def is_model_folder(names: Collection[str]) -> bool:
    """Whether a folder is one model: an unzipped `.keras` file or a preset.

    Args:
        names: The names in the folder.

    Returns:
        Whether to give the folder itself to `open_model_file`.
    """
    return _CONFIG in names and bool(weights_files(names))


def weights_files(names: Collection[str]) -> list[str]:
    """Those of the names in a folder or archive that a model's weights have."""
    return [name for name in _WEIGHTS if name in names]


def recognise(
    bundle: Bundle, stack: ExitStack, recognise_weights: RecogniseWeights
) -> Contents | None:
    """Returns the contents of a folder or archive, if it is one model.

    Args:
        bundle: The folder or archive.
        stack: Closes what is opened.
        recognise_weights: Returns the contents of one of the files.

    Returns:
        The contents, or `None` if the bundle is not a model.
    """
    files = weights_files(bundle.names)
    if not files:
        return None
    weights = {name: _weights(bundle, name, stack, recognise_weights) for name in files}
    return Contents(
        f"model folder ({', '.join(files)})",
        weights[files[0]] if len(files) == 1 else _told_apart(weights),
        lambda: _config(bundle, _WEIGHTS[files[0]]),
    )


def recognise_archive(
    source: Source, stack: ExitStack, recognise_weights: RecogniseWeights
) -> Contents | None:
    """Returns the contents of a `.keras` archive, if the file is one.

    See `recognise` for the arguments.
    """
    if not source.head.startswith(ZIP_MAGIC):
        return None
    members = Archive(source, stack)
    if not weights_files(members.names):
        raise unrecognised_archive(members.names)
    members.vet()
    contents = recognise(members, stack, recognise_weights)
    return contents and replace(contents, format="Keras archive (.keras)")


def _weights(
    bundle: Bundle, name: str, stack: ExitStack, recognise_weights: RecogniseWeights
) -> list[Kernel]:
    def config() -> Any:
        return _config(bundle, _WEIGHTS[name])

    with naming_errors(name):
        source = bundle.open(name)
        contents = recognise_weights(source, stack, config)
        if contents is not None:
            return contents.weights
        # A model without weights has this file, too.
        if source.head.startswith(HDF5_MAGIC):
            return []
        raise unrecognised(source)


def _config(bundle: Bundle, name: str) -> Any:
    """The model's config; `None` where it is missing or damaged.

    The weights can be read without.
    """
    if name not in bundle.names:
        return None
    source = bundle.open(name, bundle.limits.config_bytes)
    try:
        return parse_json(source.file.read(), bundle.limits)
    except ModelFileError:
        return None


def _told_apart(weights: dict[str, list[Kernel]]) -> list[Kernel]:
    """The weights of several files; those of the same name get their file's, too."""
    seen = Counter(
        name for some in weights.values() for name in {weight.name for weight in some}
    )
    return [
        replace(
            weight,
            path=f"{file}/{weight.path}",
            layer=f"{file}/{weight.layer}" if seen[weight.name] > 1 else weight.layer,
        )
        for file, some in weights.items()
        for weight in some
    ]
