"""Opens model files, which may be hostile, and models in memory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, TypeAlias

from keras_wm.files.contents import ModelFile, Stored
from keras_wm.files.keras_model import (
    KerasModel,
    arrays_in_memory,
    config_in_memory,
    weights_in_memory,
)
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.files.sandbox import Sandbox
from keras_wm.files.storage.source import as_source, naming_errors, open_path

# A model file by its path or URL, an open model file, or a model in memory.
ModelSource: TypeAlias = str | os.PathLike[str] | BinaryIO | KerasModel


@contextmanager
def open_model(
    model: ModelSource,
    limits: Limits | None = None,
    sandbox: bool | Sandbox = False,
) -> Iterator[ModelFile]:
    """Opens a model file, or a model in memory, and lists its weights.

    Args:
        model: A model file, as for `open_model_file`, or a Keras model.
        limits: Limits on the resources that the file can use; the defaults of
            `Limits` if `None`.
        sandbox: Whether to read the file in a child process, or the `Sandbox` to
            read it in. A model in memory is read directly.

    Yields:
        The open `ModelFile`. Its weights can be read until the context is left.

    Raises:
        ModelFileError: If the file cannot be read; see `open_model_file`.
        TypeError: If `model` is neither a model file nor a Keras model.
        ValueError: If `model` is an open file, and `sandbox` is set.
    """
    if isinstance(model, KerasModel):
        yield ModelFile(
            "Keras model",
            weights_in_memory(model),
            lambda: config_in_memory(model),
            lambda: arrays_in_memory(model),
            # Keras has read the config already, and dropped what the model ignores.
            has_config=True,
            path=f"model {model.name!r} in memory",
        )
    elif not sandbox:
        with open_model_file(model, limits) as model_file:
            yield model_file
    elif isinstance(model, (str, os.PathLike)):
        with ExitStack() as stack:
            if sandbox is True:
                sandbox = stack.enter_context(Sandbox(limits))
            yield stack.enter_context(sandbox.open_model_file(model))
    else:
        raise ValueError(
            "Expected the path of a model file, because a sandbox cannot read a file "
            f"that is open in another process. Received: {_name(model)}. Pass its "
            "path, or sandbox=False."
        )


@contextmanager
def open_model_file(
    file: str | os.PathLike[str] | BinaryIO, limits: Limits | None = None
) -> Iterator[ModelFile]:
    """Opens a model file, without trusting it, and lists its weights.

    Nothing in the file is executed or deserialized, and no array is read before its
    `Kernel.read()` is called.

    Args:
        file: Path of a `.keras`, `.weights.h5`, `.h5` or `.safetensors` file, or of
            the index of a model that is split into several files (`.weights.json`,
            `.safetensors.index.json`); the format is recognised by the content, not
            by the extension. Or the path of a folder: an unzipped `.keras` file or a
            preset. Or the URL of one of these, of any protocol of fsspec. Or an open
            seekable binary file, which is read from its start and is not closed. Its
            position is undefined afterwards. An index of shards needs a path or URL.
        limits: Limits on the resources that the file can use; the defaults of
            `Limits` if `None`.

    Yields:
        The open `ModelFile`. Its weights can be read until the context is left.

    Raises:
        ModelFileError: If the file is missing or damaged.
        UnsafeFileError: If reading the file could do harm.
        UnsupportedFileError: If it is not a model file, or has a format that
            keras_wm does not read.
        TypeError: If `file` is neither a path nor a binary file.
        ValueError: If `file` is an open file that is not seekable.

    Example:

    ```python
    with open_model_file("downloaded.keras") as model_file:
        for kernel in model_file.kernels:
            print(kernel.name, kernel.shape)
    ```
    """
    # Late, because a process that reads files only in a sandbox does not need HDF5.
    from keras_wm.files.formats.bundle import read_contents

    limits = limits or DEFAULT_LIMITS
    name = _name(file)
    with ExitStack() as stack:
        with naming_errors(name):
            if isinstance(file, (str, os.PathLike)):
                opened = open_path(os.fspath(file), limits, stack)
            else:
                opened = as_source(file, limits)
            contents = read_contents(opened, stack)
        # As a decorator, `naming_errors` names the file in the errors of each call.
        weights = [
            replace(weight, read=naming_errors(name)(weight.read))
            for weight in contents.weights
        ]

        def arrays() -> list[Stored]:
            return [
                replace(array, read=naming_errors(name)(array.read))
                for array in contents.arrays()
            ]

        yield ModelFile(
            contents.format,
            weights,
            naming_errors(name)(contents.config),
            arrays,
            contents.has_config,
            contents.custom_classes,
            path=name,
        )


def _name(file: Any) -> str:
    """Returns the name of a path or of an open binary file for reports and errors."""
    if isinstance(file, (str, os.PathLike)):
        return str(os.fspath(file))
    if not hasattr(file, "read") or isinstance(file, io.TextIOBase):
        raise TypeError(
            "Expected a model file, as its path or as an open binary file, or a Keras "
            f"model. Received: {type(file).__name__}"
        )
    if not file.seekable():
        raise ValueError(
            "Expected a seekable file. Received: a stream without positions. Copy it "
            "to a file or to io.BytesIO first."
        )
    # The name of a file that was opened by its descriptor is a number.
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "an open file"
