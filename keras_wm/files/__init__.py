"""Reads the kernels of a model file without trusting it.

All names are imported when they are first used: a process that reads files only in a
`Sandbox` needs none of the readers, and starting a sandbox does not even need NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_wm.utils.lazy import attach

__all__ = [
    "DEFAULT_LIMITS",
    "Kernel",
    "Limits",
    "ModelFile",
    "ModelSource",
    "Sandbox",
    "is_model_folder",
    "open_model",
    "open_model_file",
    "select",
    "shards_of",
    "weights_files",
]

if TYPE_CHECKING:
    from keras_wm.files.contents import Kernel, ModelFile, select
    from keras_wm.files.formats.bundle import is_model_folder, weights_files
    from keras_wm.files.formats.sharded import shards_of
    from keras_wm.files.limits import DEFAULT_LIMITS, Limits
    from keras_wm.files.model_file import ModelSource, open_model, open_model_file
    from keras_wm.files.sandbox import Sandbox

__getattr__, __dir__ = attach(
    __name__,
    {
        "contents": ["Kernel", "ModelFile", "select"],
        "formats.bundle": ["is_model_folder", "weights_files"],
        "formats.sharded": ["shards_of"],
        "limits": ["DEFAULT_LIMITS", "Limits"],
        "model_file": ["ModelSource", "open_model", "open_model_file"],
        "sandbox": ["Sandbox"],
    },
)
