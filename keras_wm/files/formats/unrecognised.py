"""Errors for files that are not Keras models, with a guess at their format."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from keras_wm.errors import UnsupportedFileError
from keras_wm.files.hdf5.file import HDF5_MAGIC
from keras_wm.files.storage.source import Source
from keras_wm.files.storage.zip_archive import ZIP_MAGIC

_SAVED_MODEL = (
    "a TensorFlow SavedModel, which only TensorFlow reads. If you made it, load it "
    "there and save the model's weights as .weights.h5; otherwise, note that "
    "loading it can run its code"
)
_CHECKPOINT = "a TensorFlow checkpoint, which only TensorFlow reads"
_OTHER_ARCHIVE = "a zip archive without a Keras model's weights"
_PICKLE = "a pickle; pickles are never read"
# Descriptions of a file by the bytes at an offset.
_MAGIC = (
    (0, HDF5_MAGIC, "an HDF5 file without Keras weights"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, ZIP_MAGIC, _OTHER_ARCHIVE),
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
    *((0, bytes([0x80, version]), _PICKLE) for version in range(3, 6)),
    (0, b"version https://git-lfs", "a Git LFS pointer; run git lfs pull"),
)
# Keras's private function `save_model(..., weights_format="npz")` writes these.
_PICKLED_WEIGHTS = "Keras weights as pickles (.weights.npz); pickles are never read"
# Descriptions of an archive by a part of the name of a member.
_IN_ARCHIVE = (
    ("data.pkl", "a PyTorch archive. Pickles are never read"),
    (".weights.npz", _PICKLED_WEIGHTS),
    ("__root__.npy", _PICKLED_WEIGHTS),
    (".npy", "an archive of NumPy arrays"),
)
# Descriptions of a folder by a part of a name in it.
_IN_FOLDER = (
    ("saved_model.pb", _SAVED_MODEL),
    (".data-00000-of-", _CHECKPOINT),
    ("_METADATA", "an Orbax checkpoint, which only Orbax reads"),
    ("pytorch_model", "a folder with PyTorch weights; pickles are never read"),
    (".weights.npz", f"a folder with {_PICKLED_WEIGHTS}"),
    ("flax_model", "a folder with Flax weights in MessagePack"),
    *(
        (ending, "a folder with model files. Name one of them, or scan the folder")
        for ending in (".keras", ".h5", ".hdf5", ".safetensors", ".weights.json")
    ),
)
# The last bytes of a TensorFlow table, which is the format of a checkpoint's index.
_TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"


def unrecognised_folder(names: Collection[str]) -> UnsupportedFileError:
    """Returns the error for a folder that is not a model."""
    default = "a folder without model files" if names else "an empty folder"
    description = _describe_names(names, _IN_FOLDER, default)
    return UnsupportedFileError(f"not a Keras model: it is {description}.")


def unrecognised_archive(names: Collection[str]) -> UnsupportedFileError:
    """Returns the error for a zip archive that is not a model."""
    description = _describe_names(names, _IN_ARCHIVE, _OTHER_ARCHIVE)
    return UnsupportedFileError(f"not a Keras model file: it is {description}.")


def unrecognised(source: Source) -> UnsupportedFileError:
    """Returns the error for a file whose format no reader recognises."""
    return UnsupportedFileError(f"not a Keras model file: it is {_describe(source)}.")


def _describe_names(
    names: Collection[str], descriptions: Iterable[tuple[str, str]], default: str
) -> str:
    for part, description in descriptions:
        if any(part in name for name in names):
            return description
    return default


def _describe(source: Source) -> str:
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
    source.file.seek(max(0, source.size - len(_TABLE_END)))
    if source.file.read() == _TABLE_END:
        return _CHECKPOINT
    return "not a recognised model format"
