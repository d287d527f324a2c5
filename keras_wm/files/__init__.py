"""What a model file is, and how to read one kernel of it without trusting it."""

from keras_wm.files.kernel import Kernel, select
from keras_wm.files.limits import Limits
from keras_wm.files.model_bundle import is_model_folder
from keras_wm.files.model_file import ModelFile, open_model_file
from keras_wm.files.shard_index import shards_of

__all__ = [
    "Kernel",
    "Limits",
    "ModelFile",
    "is_model_folder",
    "open_model_file",
    "select",
    "shards_of",
]
