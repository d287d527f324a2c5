"""What a file looks like that is not a Keras model."""

from __future__ import annotations

from collections.abc import Collection

from keras_wm.errors import UnsupportedFileError
from keras_wm.files.hdf5.file import HDF5_MAGIC
from keras_wm.files.storage.source import Source

_SAVED_MODEL = (
    "a TensorFlow SavedModel, which only TensorFlow reads. If you made it, load it "
    "there and save the model's weights as .weights.h5; if you did not, mind that "
    "loading it can run its code"
)
_CHECKPOINT = "a TensorFlow checkpoint, which only TensorFlow reads"
_MAGIC = (
    (0, HDF5_MAGIC, "an HDF5 file without Keras weights"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (0, b"BZh", "a bzip2 archive; unpack it first"),
    (0, b"\xfd7zXZ", "an xz archive; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x08\x01\x12", _SAVED_MODEL),
    *((0, bytes([8, version, 18]), "an ONNX model") for version in range(3, 20)),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x81\xa6params", "Flax weights in MessagePack"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"\x80\x02", "a pickle, such as PyTorch's; pickles are never read"),
    (0, b"\x80\x03", "a pickle; pickles are never read"),
    (0, b"\x80\x04", "a pickle; pickles are never read"),
    (0, b"\x80\x05", "a pickle; pickles are never read"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the file it stands for"),
)
# Keras's private `save_model(..., weights_format="npz")` writes these.
_PICKLED_WEIGHTS = "Keras weights as pickles (.weights.npz); pickles are never read"
# What an archive is when the name of a member has this ending.
_IN_ARCHIVE = (
    ("data.pkl", "a PyTorch archive. Pickles are never read"),
    (".weights.npz", _PICKLED_WEIGHTS),
    ("__root__.npy", _PICKLED_WEIGHTS),
    (".npy", "an archive of NumPy arrays"),
)
# Where a table of TensorFlow's ends, which is the index of a checkpoint.
_TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
# What a folder is when a name in it has this part.
_IN_FOLDER = (
    ("saved_model.pb", _SAVED_MODEL),
    (".data-00000-of-", _CHECKPOINT),
    ("_METADATA", "an Orbax checkpoint, which only Orbax reads"),
    ("pytorch_model", "a folder with PyTorch weights; pickles are never read"),
    (".weights.npz", f"a folder with {_PICKLED_WEIGHTS}"),
    ("flax_model", "a folder with Flax weights in MessagePack"),
)
_MODEL_FILES = (".keras", ".h5", ".hdf5", ".safetensors", ".weights.json")


def unrecognised_folder(names: Collection[str]) -> UnsupportedFileError:
    """The error for a folder that is not one model."""
    return UnsupportedFileError(f"not a Keras model: it is {_folder_looks(names)}.")


def _folder_looks(names: Collection[str]) -> str:
    if not names:
        return "an empty folder"
    for part, description in _IN_FOLDER:
        if any(part in name for name in names):
            return description
    if any(name.endswith(_MODEL_FILES) for name in names):
        return "a folder with model files in it. Name one of them, or scan the folder"
    return "a folder without model files"


def unrecognised_archive(names: Collection[str]) -> UnsupportedFileError:
    """Returns the error for a zip archive that is not a model."""
    looks = next(
        (
            description
            for ending, description in _IN_ARCHIVE
            if any(name.endswith(ending) for name in names)
        ),
        "a zip archive without a Keras model's weights",
    )
    return UnsupportedFileError(f"not a Keras model file: it is {looks}.")


def unrecognised(source: Source) -> UnsupportedFileError:
    """The error for a file that no reader of model files knows."""
    return UnsupportedFileError(f"not a Keras model file: it is {_looks(source)}.")


def _looks(source: Source) -> str:
    if source.size == 0:
        return "empty"
    for offset, magic, description in _MAGIC:
        if source.head[offset:].startswith(magic):
            return description
    start = source.head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "a web page; download the file itself"
    if start.startswith(b"{"):
        if b'"class_name"' in source.head:
            return "the architecture of a model as JSON, without its weights"
        return "JSON text"
    if _end(source) == _TABLE_END:
        return _CHECKPOINT
    return "of no kind that is known here"


def _end(source: Source) -> bytes:
    source.file.seek(max(0, source.size - len(_TABLE_END)))
    return source.file.read(len(_TABLE_END))
