"""Opening a model file that may be hostile, and listing its kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from keras_wm.files import hdf5_file, keras_archive
from keras_wm.files.blame import blamed_on
from keras_wm.files.contents import Contents
from keras_wm.files.kernel import Kernel
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.files.source import Source, open_source
from keras_wm.files.unrecognised import unrecognised

# A format is a module with a function that gives the contents of a file, or `None`
# if the file is of another format.
_FORMATS = (keras_archive.recognise, hdf5_file.recognise)


@dataclass(frozen=True)
class ModelFile:
    """An open model file.

    Attributes:
        path: The path or URL it was opened by.
        format: What kind of file it is, by its content.
        kernels: Every array of floats with two axes or more that the model
            computes with, in the file's order.
    """

    path: str
    format: str
    kernels: list[Kernel]


@contextmanager
def open_model_file(
    path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS
) -> Iterator[ModelFile]:
    """Opens a model file, without trusting it, and lists its kernels.

    Nothing in the file is executed or deserialized, and no array is read before its
    `Kernel.read()` is called.

    Args:
        path: Path of a `.keras`, `.weights.h5` or `.h5` file, whatever its
            extension; or a URL that fsspec understands.
        limits: What the file may ask of this machine.

    Yields:
        The open `ModelFile`. Its kernels can be read until the context is left.

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
            contents = _recognise(open_source(path, limits, stack), stack)
        kernels = [_blaming(kernel, path) for kernel in contents.kernels]
        yield ModelFile(path, contents.format, kernels)


def _recognise(source: Source, stack: ExitStack) -> Contents:
    for recognise in _FORMATS:
        contents = recognise(source, stack)
        if contents is not None:
            return contents
    raise unrecognised(source)


def _blaming(kernel: Kernel, path: str) -> Kernel:
    def read() -> NDArray[np.floating]:
        with blamed_on(path):
            return kernel.read()

    return replace(kernel, read=read)
