"""What a model file is, and how to read one kernel of it without trusting it.

Everything is imported when it is asked for: who has a `Sandbox` read a file needs none
of the readers, and to start one needs not even NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "DEFAULT_LIMITS": "limits",
    "Kernel": "kernel",
    "Limits": "limits",
    "ModelFile": "contents",
    "Sandbox": "sandbox",
    "is_model_folder": "formats.bundle",
    "open_model_file": "model_file",
    "select": "kernel",
    "shards_of": "formats.shard_index",
    "weights_files": "formats.bundle",
}

__all__ = [
    "DEFAULT_LIMITS",
    "Kernel",
    "Limits",
    "ModelFile",
    "Sandbox",
    "is_model_folder",
    "open_model_file",
    "select",
    "shards_of",
    "weights_files",
]

if TYPE_CHECKING:
    from keras_wm.files.contents import ModelFile
    from keras_wm.files.kernel import Kernel, select
    from keras_wm.files.limits import DEFAULT_LIMITS, Limits
    from keras_wm.files.formats.bundle import is_model_folder, weights_files
    from keras_wm.files.model_file import open_model_file
    from keras_wm.files.sandbox import Sandbox
    from keras_wm.files.formats.shard_index import shards_of


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
