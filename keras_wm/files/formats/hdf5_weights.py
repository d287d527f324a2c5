"""A plain HDF5 file as a source of weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from keras_wm.files.contents import Contents, no_config
from keras_wm.files.formats.keras3 import weights_of_keras3
from keras_wm.files.formats.legacy import (
    WHOLE_MODEL,
    is_legacy,
    model_config,
    weights_of_legacy,
)
from keras_wm.files.formats.shard import Shard
from keras_wm.files.hdf5.file import HDF5_MAGIC, BoundedFile
from keras_wm.files.hdf5.walk import has_child
from keras_wm.files.storage.source import Source


def recognise(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """The weights of a `.weights.h5` or `.h5` file, if it is one.

    Args:
        source: The open file.
        stack: Closes what is opened.
        config: Reads the model's config, where one belongs to the file.

    Returns:
        What is in the file, or `None` where it is no such file.
    """
    # HDF5 would also look for its magic further back.
    if not source.head.startswith(HDF5_MAGIC):
        return None
    file = stack.enter_context(BoundedFile(source))
    if is_legacy(file, source.limits):
        what = "" if has_child(file, WHOLE_MODEL) else " weights"
        weights = weights_of_legacy(file, source.size, source.limits)
        return Contents(
            f"legacy HDF5{what} (.h5)",
            weights,
            lambda: model_config(file, source.limits),
        )
    shard = Shard(file, source.size, source.limits)
    found = weights_of_keras3([shard], source.limits, config)
    return None if found is None else Contents("Keras weights (.weights.h5)", found)
