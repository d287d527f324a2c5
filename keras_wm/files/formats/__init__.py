"""Formats of model files: one module each, and the table that lists them.

Each module has a function `recognise`. It returns the contents of a file, or `None` if
the file has another format.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from keras_wm.files.contents import Contents, no_config
from keras_wm.files.formats import bundle, hdf5_weights, safetensors, sharded
from keras_wm.files.formats.unrecognised import unrecognised, unrecognised_folder
from keras_wm.files.storage.source import Folder, Source

# The formats of a single file, which can be in a folder or in an archive.
_FORMATS = (
    hdf5_weights.recognise,
    safetensors.recognise,
    sharded.recognise,
)


def read_contents(opened: Source | Folder, stack: ExitStack) -> Contents:
    """Lists the contents of a model file or folder.

    Args:
        opened: The open file, or the folder.
        stack: Closes the opened files.

    Returns:
        The contents.

    Raises:
        UnsupportedFileError: If it is not a model, or its format is unknown.
    """
    if not isinstance(opened, Source):
        contents = bundle.recognise(opened, stack, _recognise_weights)
        if contents is None:
            raise unrecognised_folder(opened.names)
        return contents
    contents = bundle.recognise_archive(
        opened, stack, _recognise_weights
    ) or _recognise_weights(opened, stack)
    if contents is None:
        raise unrecognised(opened)
    return contents


def _recognise_weights(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """Returns the contents of a single file; see `hdf5_weights.recognise`."""
    for recognise in _FORMATS:
        contents = recognise(source, stack, config)
        if contents is not None:
            return contents
    return None
