"""Formats of model files, one module each.

Each module has a function `recognise`. It returns the contents of a file, or `None` if
the file has another format.
"""

from __future__ import annotations

from contextlib import ExitStack

from keras_wm.files.contents import Contents
from keras_wm.files.formats import bundle
from keras_wm.files.formats.unrecognised import unrecognised, unrecognised_folder
from keras_wm.files.storage.source import Folder, Source


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
        contents = bundle.recognise(opened, stack)
        if contents is None:
            raise unrecognised_folder(opened.names)
        return contents
    contents = bundle.recognise_archive(opened, stack)
    contents = contents or bundle.recognise_weights(opened, stack)
    if contents is None:
        raise unrecognised(opened)
    return contents
