"""A `.keras` archive as a source of weights."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from keras_wm.errors import UnsupportedFileError
from keras_wm.files.contents import Contents
from keras_wm.files.formats import bundle as model_bundle
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.zip_archive import MAGIC, Archive


def recognise(source: Source, stack: ExitStack) -> Contents | None:
    """The weights of a `.keras` archive, if the file is one."""
    if not source.head.startswith(MAGIC):
        return None
    members = Archive(source, stack)
    if not model_bundle.weights_files(members.names):
        _refuse_relatives(members.names)
        return None
    members.vet()
    contents = model_bundle.recognise(members, stack)
    return contents and replace(contents, format="Keras archive (.keras)")


def _refuse_relatives(names: list[str]) -> None:
    if any(name.endswith("data.pkl") for name in names):
        raise UnsupportedFileError(
            "not a Keras model file: it is a PyTorch archive. Pickles are never read."
        )
    if any(name.endswith(".npy") for name in names):
        raise UnsupportedFileError(
            "not a Keras model file: it is an archive of NumPy arrays."
        )
