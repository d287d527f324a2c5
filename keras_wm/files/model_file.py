"""A model file of whichever kind, recognised by its content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from keras_wm.errors import UnsupportedFileError
from keras_wm.files.archive import Archive
from keras_wm.files.hdf5 import SafeFile, damage_is_an_error, open_hdf5
from keras_wm.files.keras3 import Names, keras3_kernels, names_in_config
from keras_wm.files.kernel import Kernel
from keras_wm.files.legacy import is_legacy, legacy_kernels
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.files.source import open_source

_ZIP = b"PK\x03\x04"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_WEIGHTS = "model.weights.h5"
_CONFIG = "config.json"

# What else people hand in, by its first bytes.
_LOOKS_LIKE = {
    b"": "an empty file",
    b"PK\x05\x06": "an empty zip archive",
    b"\x80": "a pickle, such as an old PyTorch file; it is never loaded",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF model",
    b"\x89PNG": "a PNG picture",
    b"\x1f\x8b": "a gzip archive",
    b"{": "JSON",
    b"<": "a web page",
}


@dataclass(frozen=True)
class ModelFile:
    """An open model file.

    Attributes:
        path: Where it is.
        format: What it is, in words.
        kernels: Every float array of rank 2 or more, but for the state of
            optimizers and metrics, in the order of the file.
    """

    path: str
    format: str
    kernels: list[Kernel]


@contextmanager
def open_model_file(
    path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS
) -> Iterator[ModelFile]:
    """Opens a model file and lists its kernels, without loading the model.

    Args:
        path: A `.keras` archive, a Keras 3 `.weights.h5` file or a legacy `.h5`
            file, local or at a URL. The content decides, not the name.
        limits: What the file may ask of its reader.

    Yields:
        A `ModelFile`. Its kernels can be read until the file is closed.

    Raises:
        ModelFileError: If the file is missing, damaged or truncated.
        UnsafeFileError: If reading it could do harm.
        UnsupportedFileError: If it is not a Keras model file.
    """
    name = os.fspath(path)
    with open_source(path) as stream:
        with damage_is_an_error(name):
            start = stream.read(16)
            stream.seek(0)
        if start.startswith(_ZIP):
            weights, names = _open_archive(stream, name, limits)
        elif start.startswith(_HDF5):
            weights, names = stream, None
        else:
            raise _unsupported(name, _looks_like(start))
        with weights, open_hdf5(weights, name) as file:
            safe = SafeFile(file, name, limits)
            if is_legacy(safe):
                kind, kernels = "legacy HDF5 (.h5)", legacy_kernels(safe)
            else:
                kind = "Keras weights (.weights.h5)"
                if names is not None:
                    kind = "Keras archive (.keras)"
                kernels = keras3_kernels(safe, names or {})
            if not kernels:
                raise _unsupported(name, "an HDF5 file without a kernel of Keras in it")
            yield ModelFile(name, kind, kernels)


def _open_archive(
    stream: IO[bytes], name: str, limits: Limits
) -> tuple[IO[bytes], Names]:
    with damage_is_an_error(name):
        archive = Archive(stream, name, limits)
        if _WEIGHTS not in archive.members:
            raise _unsupported(name, _archive_looks_like(archive))
        names = {}
        if _CONFIG in archive.members:
            names = names_in_config(archive.read(_CONFIG, limits.config_bytes))
        return archive.open(_WEIGHTS), names


def _unsupported(name: str, what: str) -> UnsupportedFileError:
    return UnsupportedFileError(
        f"{name!r} is not a Keras model file that can be read: it looks like {what}. "
        "Expected .keras, .h5 or .weights.h5."
    )


def _looks_like(start: bytes) -> str:
    if start[8:9] == b"{":
        return "a safetensors file"
    for signature, what in _LOOKS_LIKE.items():
        if start.startswith(signature) if signature else not start:
            return what
    return "data of another kind" if b"\0" in start else "text"


def _archive_looks_like(archive: Archive) -> str:
    names = list(archive.members)
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file, a pickle; it is never loaded"
    if "model.weights.npz" in names:
        return "a .keras archive with its weights in NumPy's format"
    return f"a zip archive without {_WEIGHTS!r}"
