"""A `.keras` archive as a source of kernels."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from keras_wm.errors import UnsupportedFileError
from keras_wm.files import archive
from keras_wm.files.bounded_hdf5 import BoundedFile
from keras_wm.files.contents import Contents
from keras_wm.files.keras3 import kernels_of_keras3
from keras_wm.files.source import Source

_WEIGHTS = "model.weights.h5"
_CONFIG = "config.json"


def recognise(source: Source, stack: ExitStack) -> Contents | None:
    """The kernels of a `.keras` archive, if the file is one."""
    if not source.head.startswith(archive.MAGIC):
        return None
    members = archive.Archive(source, stack)
    if _WEIGHTS not in members.names:
        _refuse_relatives(members.names)
        return None
    members.vet()
    weights, size = members.open(_WEIGHTS, source.limits.inflated_bytes)

    def config() -> Any:
        return _config(members, source.limits.config_bytes)

    source = replace(source, file=weights, size=size)
    file = stack.enter_context(BoundedFile(source))
    kernels = kernels_of_keras3(file, size, source.limits, config)
    return Contents("Keras archive (.keras)", kernels or [])


def _config(members: archive.Archive, most: int) -> Any:
    """The model's config; `None` where it is missing or damaged.

    Only names are taken from it, and the kernels can be read without.
    """
    if _CONFIG not in members.names:
        return None
    file, _ = members.open(_CONFIG, most)
    try:
        return json.loads(file.read())
    except (ValueError, RecursionError):
        return None


def _refuse_relatives(names: list[str]) -> None:
    if "model.weights.npz" in names:
        raise UnsupportedFileError(
            "a .keras archive whose weights are in NumPy's format, which is not read. "
            "Save the model again with weights_format='h5'."
        )
    if any(name.endswith("data.pkl") for name in names):
        raise UnsupportedFileError(
            "not a Keras model file: it is a PyTorch archive. Pickles are never read."
        )
    if any(name.endswith(".npy") for name in names):
        raise UnsupportedFileError(
            "not a Keras model file: it is an archive of NumPy arrays."
        )
