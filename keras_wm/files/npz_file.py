"""An archive of NumPy arrays, which Keras writes with `weights_format="npz"`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from keras_wm.errors import UnsupportedFileError
from keras_wm.files.archive import MAGIC, Archive
from keras_wm.files.contents import Contents
from keras_wm.files.hdf5_file import no_config
from keras_wm.files.source import Source

_ROOT = "__root__.npy"


def recognise(
    source: Source, stack: ExitStack, config: Callable[[], Any] = no_config
) -> Contents | None:
    """Refuses a file that is such an archive, and says what to do instead."""
    if not source.head.startswith(MAGIC):
        return None
    names = Archive(source, stack).names
    if _ROOT in names:
        raise UnsupportedFileError(
            "Keras weights in NumPy's format, which are pickles. Pickles are never "
            "read, and Keras itself does not load them. Save the model again with "
            "weights_format='h5'."
        )
    return None
