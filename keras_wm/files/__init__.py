"""What a model file is, and how to read one kernel of it without trusting it."""

from keras_wm.files.kernel import Kernel, select
from keras_wm.files.limits import DEFAULT_LIMITS, Limits
from keras_wm.files.model_file import ModelFile, open_model_file
from keras_wm.files.sandbox import Sandbox
from keras_wm.files.source import file_system
from keras_wm.files.together import files_of_models

__all__ = [
    "DEFAULT_LIMITS",
    "Kernel",
    "Limits",
    "ModelFile",
    "Sandbox",
    "file_system",
    "files_of_models",
    "open_model_file",
    "select",
]
