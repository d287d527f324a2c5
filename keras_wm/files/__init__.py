"""What a model file is, and how to read one kernel of it without trusting it."""

from keras_wm.files.kernel import Kernel, select
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.files.model_bundle import is_model_folder, weights_files
from keras_wm.files.model_file import ModelFile, open_model_file
from keras_wm.files.sandbox import Sandbox
from keras_wm.files.shard_index import shards_of

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
