"""HDF5 files: weights of Keras 3, and the legacy files of whole models or weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from keras_wm.files.contents import Contents, no_config
from keras_wm.files.formats.keras3 import Shard, weights_of_keras3
from keras_wm.files.formats.legacy import (
    WHOLE_MODEL,
    is_legacy,
    model_config,
    weights_of_legacy,
)
from keras_wm.files.hdf5.file import HDF5_MAGIC, BoundedFile
from keras_wm.files.hdf5.walk import has_child
from keras_wm.files.storage.source import Source


def recognise(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """Returns the contents of a `.weights.h5` or `.h5` file, if it is one.

    Args:
        source: The open file.
        stack: Closes the opened files.
        config: Reads the model's config, if it is stored in another file.

    Returns:
        The contents, or `None` if the file has another format.
    """
    # Only at the start: HDF5 itself would search for its magic bytes further back.
    if not source.head.startswith(HDF5_MAGIC):
        return None
    file = stack.enter_context(BoundedFile(source))
    if is_legacy(file):
        part = "" if has_child(file, WHOLE_MODEL) else " weights"
        return Contents(
            f"legacy HDF5{part} (.h5)",
            weights_of_legacy(file),
            lambda: model_config(file),
        )
    weights = weights_of_keras3([Shard(file)], source.limits, config)
    if weights is None:
        return None
    return Contents("Keras weights (.weights.h5)", weights)
