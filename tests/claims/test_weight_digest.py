"""The digest of a model's weights, and a second implementation of it."""

import hashlib
import io
import struct

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_wm import ClaimError, UnsafeFileError
from keras_wm.claims import ModelDigest, weight_digest
from keras_wm.files import Limits
from tests.files.written import (
    write_archive,
    write_legacy,
    write_quantized,
    write_weights,
)

FLOATS = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")


def field(value):
    return struct.pack(">Q", len(value)) + value


def digest_of(arrays):
    """Returns the digest of arrays, each a name of a type and values as float64."""
    hashes = []
    for dtype, values in arrays:
        shape = ",".join(str(axis) for axis in values.shape)
        form = {"float64": "<f8", "int8": "<i1", "uint8": "<u1"}.get(dtype, "<f4")
        content = values.astype(form)
        if dtype not in ("int8", "uint8"):
            content[np.isnan(content)] = struct.unpack("<f", bytes.fromhex("0000c07f"))
        start = b"".join(map(field, (b"keras_wm weights 1", dtype.encode())))
        start += field(shape.encode())
        hashes.append(hashlib.sha256(start + content.tobytes("C")).digest())
    count = str(len(hashes)).encode()
    whole = field(b"keras_wm weights 1") + field(count) + b"".join(sorted(hashes))
    return hashlib.sha256(whole).hexdigest()


def arrays_of_hdf5(path, top="/"):
    """Returns all weights below a group of an HDF5 file, without the optimizer's."""
    found = []

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and "optimizer" not in name:
            is_code = item.dtype.kind in "iu" and item.dtype.itemsize == 1
            if (item.dtype.kind == "f" and item.ndim) or (is_code and item.ndim > 1):
                found.append((item.dtype.name, item[()]))

    with h5py.File(path) as file:
        file[top].visititems(visit)
    return found


def test_every_file_of_a_model_and_the_model_in_memory_have_one_digest(
    marked, tmp_path
):
    weights = [(weight.dtype, np.asarray(weight)) for weight in marked.model.weights]
    expected = digest_of(weights)
    tensors = {f"t{n}": values for n, (_, values) in enumerate(weights)}
    save_file(tensors, tmp_path / "a.safetensors")
    files = [*marked.files.values(), tmp_path / "a.safetensors"]
    assert {weight_digest(file) for file in files} == {expected}
    assert weight_digest(marked.model) == expected
    assert digest_of(arrays_of_hdf5(marked.files[".h5"], "model_weights")) == expected
    assert digest_of(arrays_of_hdf5(marked.files[".weights.h5"])) == expected
    kernel = marked.model.layers[0].kernel
    kept = np.array(kernel)
    changed = kept.copy()
    changed.flat[7] = np.nextafter(changed.flat[7], 1, dtype="float32")
    try:
        kernel.assign(changed)
        assert weight_digest(marked.model) != expected
    finally:
        kernel.assign(kept)


def test_optimizer_and_metrics_do_not_matter(marked, tmp_path):
    marked.model.save(tmp_path / "with_state.keras")
    assert weight_digest(tmp_path / "with_state.keras") == weight_digest(marked.model)


@pytest.mark.parametrize("write", [write_weights, write_archive, write_legacy])
def test_the_container_does_not_matter(tmp_path, write):
    values = np.arange(12, dtype="float32").reshape(3, 4)
    assert weight_digest(write(tmp_path / "a")) == digest_of([("float32", values)])


@pytest.mark.parametrize("name", FLOATS)
def test_every_type_of_floats_follows_the_specification(tmp_path, name):
    import ml_dtypes

    values = np.random.default_rng(1).normal(size=(3, 4)).astype(np.dtype(name))
    assert ml_dtypes.bfloat16  # Registers its types with NumPy.
    save_file({"a": values}, tmp_path / "a")
    assert weight_digest(tmp_path / "a") == digest_of([(name, values.astype("f8"))])


def test_quantized_kernels_count_as_they_are_stored(tmp_path):
    path = write_quantized(tmp_path / "a.weights.h5")
    assert weight_digest(path) == digest_of(arrays_of_hdf5(path))
    with h5py.File(path, "r+") as file:
        file["layers/dense/vars/0"][0, 0] += 1
    assert weight_digest(path) == digest_of(arrays_of_hdf5(path))


def test_neither_byte_order_nor_the_order_of_axes_in_memory_matter(tmp_path):
    values = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    expected = digest_of([("float32", values)])
    stored = [values.astype(">f4"), np.asfortranarray(values)]
    for kernel in stored:
        assert weight_digest(write_weights(tmp_path / "a", kernel)) == expected
    chunked = {"chunks": (2, 2), "compression": "gzip"}
    assert weight_digest(write_weights(tmp_path / "a", values, **chunked)) == expected


def test_shape_type_and_the_sign_of_zero_matter(tmp_path):
    values = np.zeros((3, 4), "float32")
    others = [values.T, values.astype("float64"), -values, values + np.float32(1e-45)]
    digests = {
        weight_digest(write_weights(tmp_path / "a", kernel))
        for kernel in (values, *others)
    }
    assert len(digests) == 5


def test_every_nan_counts_as_the_same(tmp_path):
    bits = np.array([[0x7FC00000, 0x7FC00001], [0xFFC00000, 0x3F800000]], "uint32")
    values = bits.view("float32")
    plain = np.array([[np.nan, np.nan], [np.nan, 1]], "float32")
    digest = weight_digest(write_weights(tmp_path / "a", values))
    assert digest == weight_digest(write_weights(tmp_path / "b", plain))
    assert digest == digest_of([("float32", plain)])


def test_equal_arrays_are_counted(tmp_path):
    one = np.ones((2, 2), "float32")
    save_file({"a": one, "b": one, "c": 2 * one}, tmp_path / "a")
    save_file({"a": one, "b": 2 * one, "c": 2 * one}, tmp_path / "b")
    assert weight_digest(tmp_path / "a") != weight_digest(tmp_path / "b")


def test_seeds_counters_and_scalars_do_not_count(tmp_path):
    kernel = np.ones((2, 2), "float32")
    extra = {
        "seed": np.zeros(2, "uint32"),
        "steps": np.zeros((2, 2), "int64"),
        "scale": np.array(1, "float32"),
        "flags": np.zeros(3, "int8"),
    }
    save_file({"a": kernel, **extra}, tmp_path / "a")
    assert weight_digest(tmp_path / "a") == digest_of([("float32", kernel)])


def test_large_arrays_are_hashed_in_blocks(tmp_path, monkeypatch):
    values = np.random.default_rng(1).normal(size=(13, 11)).astype("float32")
    monkeypatch.setattr("keras_wm.claims.model_digest._BLOCK", 10)
    digest = weight_digest(write_weights(tmp_path / "a", values))
    assert digest == digest_of([("float32", values)])


@pytest.mark.study
def test_a_sandbox_gives_the_same_digest(tmp_path):
    for path in (
        write_quantized(tmp_path / "a"),
        write_archive(tmp_path / "b"),
        write_weights(tmp_path / "c", np.ones((2, 3), "float64")),
    ):
        assert weight_digest(path, sandbox=True) == weight_digest(path)


def test_the_file_digest_is_that_of_its_bytes(tmp_path):
    path = write_weights(tmp_path / "a")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert ModelDigest.of(path).file == expected
    assert ModelDigest.of(io.BytesIO(path.read_bytes())).file == expected


def test_a_model_in_a_folder_has_no_file_digest(tmp_path):
    folder = tmp_path / "unzipped"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    path = write_weights(folder / "model.weights.h5")
    assert ModelDigest.of(folder) == ModelDigest(weight_digest(path), None)


def test_limits_hold(tmp_path):
    path = write_weights(tmp_path / "a")
    with pytest.raises(UnsafeFileError, match="array_bytes"):
        weight_digest(path, limits=Limits(array_bytes=10))


def test_a_model_without_weights_has_no_digest(tmp_path):
    save_file({"a": np.zeros(2, "int64")}, tmp_path / "a")
    with pytest.raises(ClaimError, match="has none"):
        weight_digest(tmp_path / "a")
