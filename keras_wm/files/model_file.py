"""Opening a model file that may be hostile, and listing its weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TypeVar

from keras_wm.files.contents import Contents, ModelFile
from keras_wm.files.formats import (
    bundle as model_bundle,
)
from keras_wm.files.formats import (
    hdf5_weights as hdf5_file,
)
from keras_wm.files.formats import (
    keras_archive,
    npz_file,
    sharded,
)
from keras_wm.files.formats import (
    safetensors as safetensors_file,
)
from keras_wm.files.formats.unrecognised import unrecognised, unrecognised_folder
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.files.storage.blame import blamed_on
from keras_wm.files.storage.folder import Folder, open_path
from keras_wm.files.storage.source import Source

Value = TypeVar("Value")

# A format is a module with a function that gives the contents of a file, or `None`
# if the file is of another format.
_FORMATS = (
    npz_file.recognise,
    keras_archive.recognise,
    hdf5_file.recognise,
    safetensors_file.recognise,
    sharded.recognise,
)


@contextmanager
def open_model_file(
    path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS
) -> Iterator[ModelFile]:
    """Opens a model file, without trusting it, and lists its weights.

    Nothing in the file is executed or deserialized, and no array is read before its
    `Kernel.read()` is called.

    Args:
        path: Path of a `.keras`, `.weights.h5`, `.h5` or `.safetensors` file, of
            the index of a model that is split into several (`.weights.json`,
            `.safetensors.index.json`), whatever their extension; or of the folder
            of an unzipped `.keras` file or of a preset. Or a URL of one of those
            that fsspec understands.
        limits: What the file may ask of this machine.

    Yields:
        The open `ModelFile`. Its weights can be read until the context is left.

    Raises:
        ModelFileError: If the file is missing or damaged.
        UnsafeFileError: If reading the file could do harm.
        UnsupportedFileError: If it is not a model file, or of a kind that is not
            read.

    Example:

    ```python
    with open_model_file("downloaded.keras") as model_file:
        for kernel in model_file.kernels:
            print(kernel.name, kernel.shape)
    ```
    """
    path = os.fspath(path)
    with ExitStack() as stack:
        with blamed_on(path):
            contents = _recognise(open_path(path, limits, stack), stack)
        weights = [
            replace(weight, read=_blaming(weight.read, path))
            for weight in contents.weights
        ]
        config = _blaming(contents.config, path)
        yield ModelFile(contents.format, weights, config, path=path)


def _recognise(found: Source | Folder, stack: ExitStack) -> Contents:
    if isinstance(found, Folder):
        contents = model_bundle.recognise(found, stack)
        if contents is None:
            raise unrecognised_folder(found.names)
        return contents
    for recognise in _FORMATS:
        contents = recognise(found, stack)
        if contents is not None:
            return contents
    raise unrecognised(found)


def _blaming(read: Callable[[], Value], path: str) -> Callable[[], Value]:
    def read_or_blame() -> Value:
        with blamed_on(path):
            return read()

    return read_or_blame
