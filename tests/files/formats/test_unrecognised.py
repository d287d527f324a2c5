"""Errors for files that are not models, with a guess at their format."""

import io
import pickle
import tarfile
import zipfile

import h5py
import numpy as np

from keras_wm.errors import UnsupportedFileError
from tests.files.written import assert_refused


def test_a_file_is_identified_by_its_first_bytes(tmp_path):
    for content, looks in (
        (b"", "empty"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "a PNG image"),
        (pickle.dumps({"a": 1}), "a pickle"),
        (pickle.dumps({"a": 1}, protocol=2), "a pickle"),
        (b'{"a": 1}', "JSON text"),
        (b'{"class_name": "Sequential"}', "the architecture of a model as JSON"),
        (b"\x08\x07\x12\x07pytorch", "an ONNX model"),
        (b"\x08\x01\x12\x86\xa9", "a TensorFlow SavedModel"),
        (b"\x81\xa6params\x82", "Flax weights"),
        (b"PAR1\x15", "a Parquet table"),
        (b"\0\0\x01W\xfb\x80\x8b$uG\xdb", "a TensorFlow checkpoint"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x1f\x8b\x08\x00", "a gzip archive"),
        (b"GGUF\x03", "a GGUF model"),
        (b"\x93NUMPY\x01", "a NumPy array"),
        (b"hello", "not a recognised model format"),
        (bytes(512) + b"\x89HDF\r\n\x1a\n", "not a recognised model format"),
    ):
        (tmp_path / "a.keras").write_bytes(content)
        match = f"not a Keras model file: it is {looks}"
        assert_refused(tmp_path / "a.keras", match, UnsupportedFileError)


def test_a_tar_archive_is_identified(tmp_path):
    with tarfile.open(tmp_path / "a.keras", "w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    assert_refused(tmp_path / "a.keras", "a tar archive", UnsupportedFileError)


def test_a_zip_archive_is_identified_by_its_members(tmp_path):
    for member, looks in (
        ("config.json", "a zip archive without a Keras model's weights"),
        ("archive/data.pkl", "a PyTorch archive"),
        ("weights.npy", "an archive of NumPy arrays"),
        ("__root__.npy", r"Keras weights as pickles \(.weights.npz\)"),
        ("model.weights.npz", r"Keras weights as pickles \(.weights.npz\)"),
    ):
        with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
            archive.writestr(member, b"")
        assert_refused(tmp_path / "a.keras", looks, UnsupportedFileError)


def test_an_hdf5_file_without_weights_is_identified(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["temperature"] = np.ones((3, 4))
    assert_refused(
        tmp_path / "a.h5", "an HDF5 file without Keras weights", UnsupportedFileError
    )


def test_a_folder_is_identified_by_its_members(tmp_path):
    for member, looks in (
        ("saved_model.pb", "a TensorFlow SavedModel, .* save .* as .weights.h5"),
        ("ck.data-00000-of-00001", "a TensorFlow checkpoint"),
        ("_METADATA", "an Orbax checkpoint"),
        ("pytorch_model.bin", "a folder with PyTorch weights"),
        ("flax_model.msgpack", "a folder with Flax weights"),
        ("model.weights.npz", "a folder with Keras weights as pickles"),
        ("a.keras", "a folder with model files. Name one .* or scan the folder"),
        ("config.json", "a folder without model files"),
    ):
        file = tmp_path / member
        file.write_bytes(b"")
        match = f"not a Keras model: it is {looks}"
        assert_refused(tmp_path, match, UnsupportedFileError)
        file.unlink()


def test_an_empty_folder_is_identified(tmp_path):
    assert_refused(tmp_path, "it is an empty folder", UnsupportedFileError)
