"""Safetensors files, written by the package `safetensors` or damaged on purpose."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_wm.errors import (
    LayerNotFoundError,
    ModelFileError,
    UnsafeFileError,
    UnsupportedFileError,
)
from keras_wm.files import Limits, open_model_file, select
from tests.files.written import assert_refused
from tests.marked_model import LAYER

ARRAY = np.arange(12, dtype="float32").reshape(3, 4)
BYTES = ARRAY.tobytes()
ENTRY = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}


def write(path, header, data=BYTES):
    """Writes a file with a header that may not fit the data; returns its path."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def kernels_of(path, **options):
    """Returns the name, note and array of each kernel in a file."""
    with open_model_file(path, **options) as file:
        return [(kernel.name, kernel.note, kernel.read()) for kernel in file.kernels]


def as_stored(path):
    """Returns the arrays in their stored axis order, by name."""
    return {name: array for name, note, array in kernels_of(path) if not note}


@pytest.fixture
def pytorch(tmp_path):
    """The path of a file with names as in PyTorch."""
    names = ["encoder.c1.weight", "encoder.c2.weight", "head/kernel", "top"]
    arrays = {name: ARRAY + index for index, name in enumerate(names)}
    save_file(arrays, tmp_path / "a.bin", metadata={"format": "pt"})
    return tmp_path / "a.bin"


def test_every_array_is_read_as_stored(pytorch):
    found = as_stored(pytorch)
    assert list(found) == [
        "encoder.c1/weight",
        "encoder.c2/weight",
        "head/kernel",
        "/top",
    ]
    for index, array in enumerate(found.values()):
        np.testing.assert_array_equal(array, ARRAY + index)


def test_the_format_is_named(pytorch):
    with open_model_file(pytorch) as file:
        assert file.format == "safetensors"


def test_a_kernel_has_a_path_a_name_and_a_type(pytorch):
    with open_model_file(pytorch) as file:
        kernel, other = file.kernels[:2]
    assert (kernel.layer, kernel.variable) == ("encoder.c1", "weight")
    assert (kernel.path, kernel.dtype) == ("encoder.c1.weight", "float32")
    assert (kernel.shape, other.shape) == ((3, 4), (4, 3))
    assert (kernel.note, "PyTorch" in other.note) == ("", True)


def test_dots_and_slashes_both_name_a_layer(pytorch):
    with open_model_file(pytorch) as file:
        for name in ("c1", "encoder.c1", "encoder/c1", "c1/weight"):
            chosen = select(file.kernels, name, "it")
            assert {kernel.name for kernel in chosen} == {"encoder.c1/weight"}


def test_an_unknown_layer_name_is_an_error(pytorch):
    with (
        open_model_file(pytorch) as file,
        pytest.raises(LayerNotFoundError, match="encoder/c3"),
    ):
        select(file.kernels, "encoder/c3", "it")


def test_an_array_is_read_in_each_order_of_its_axes(tmp_path, rng):
    for stored, orders in {
        (3, 2): [(0, 1), (1, 0)],
        (4, 3, 2): [(0, 1, 2), (2, 1, 0)],
        (5, 4, 3, 2): [(0, 1, 2, 3), (2, 3, 1, 0)],
        (6, 5, 4, 3, 2): [(0, 1, 2, 3, 4), (2, 3, 4, 1, 0)],
        (5, 1, 3, 2): [(0, 1, 2, 3), (2, 3, 1, 0), (2, 3, 0, 1)],
        (5, 1, 3): [(0, 1, 2), (2, 1, 0), (2, 0, 1)],
        (2, 1, 1, 1, 1, 2): [(0, 1, 2, 3, 4, 5)],
    }.items():
        array = rng.normal(size=stored).astype("float32")
        save_file({"c.weight": array}, tmp_path / "a")
        kernels = kernels_of(tmp_path / "a")
        assert len({note for _, note, _ in kernels}) == len(kernels) == len(orders)
        for (_, _, kernel), order in zip(kernels, orders, strict=True):
            np.testing.assert_array_equal(kernel, array.transpose(order))


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_as_pytorch_defines_it_is_the_same_in_keras(
    tmp_path, rng, depthwise
):
    import keras

    weight = rng.normal(size=(3, 1 if depthwise else 3, 2, 2)).astype("float32")
    image = rng.normal(size=(3, 5, 5)).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(image, (2, 2), axis=(1, 2))
    axes = "lst,lijst->lij" if depthwise else "ldst,dijst->lij"
    expected = np.einsum(axes, weight[:, 0] if depthwise else weight, windows)
    save_file({"c.weight": weight}, tmp_path / "a")
    kernel = kernels_of(tmp_path / "a")[2 if depthwise else 1][2]
    inputs = image.transpose(1, 2, 0)[None]
    convolve = keras.ops.depthwise_conv if depthwise else keras.ops.conv
    result = keras.ops.convert_to_numpy(convolve(inputs, kernel))
    np.testing.assert_allclose(result[0].transpose(2, 0, 1), expected, atol=1e-5)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (3, 2, 0, 1)])
@pytest.mark.parametrize("layer", ["net.wide", None])
def test_a_mark_is_found_in_every_axis_order(tmp_path, marked, axes, layer):
    from keras_wm import verify

    kernel = np.asarray(marked.model.get_layer(LAYER).kernel).transpose(axes)
    arrays = {"net.wide.weight": kernel, "net.head.weight": np.ones((4, 32))}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, tmp_path / "a")
    report = verify(tmp_path / "a", marked.key, layer=layer)
    assert report.marked
    assert report.layer == "net.wide/weight"
    assert ("PyTorch" in report.finding.kernel_note) == (axes != (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("dtype", "codes"),
    [
        (ml_dtypes.float8_e4m3fn, 2**8),
        (ml_dtypes.float8_e5m2, 2**8),
        (ml_dtypes.bfloat16, 2**16),
        (np.float16, 2**16),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_small_floats_are_widened_exactly(tmp_path, dtype, codes):
    unsigned = np.uint8 if codes == 2**8 else np.uint16
    array = np.arange(codes, dtype=unsigned).view(dtype).reshape(-1, 16)
    save_file({"c.weight": array}, tmp_path / "a")
    found = as_stored(tmp_path / "a")["c/weight"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array.astype(np.float32))
    # NaN equals NaN above, but -0.0 equals 0.0, too.
    not_nan = ~np.isnan(found)
    signs = np.signbit(array.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(found)[not_nan], signs[not_nan])


def test_double_precision_is_kept(tmp_path):
    array = np.array([[1 + 2**-50, 2.0]])
    save_file({"c.weight": array}, tmp_path / "a")
    found = as_stored(tmp_path / "a")["c/weight"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, array)


def test_other_arrays_are_not_kernels(tmp_path):
    arrays = {
        "ints": np.ones((2, 2), "int32"),
        "flags": np.ones((2, 2), bool),
        "vector": np.ones(2, "float32"),
        "scalar": np.array(1, "float32"),
        "nothing": np.ones((0, 4), "float32"),
        "many_axes": np.ones((1,) * 9, "float32"),
    }
    save_file(arrays, tmp_path / "a")
    assert kernels_of(tmp_path / "a") == []


def test_reading_one_kernel_reads_no_other(tmp_path):
    small, large = np.ones((2, 2), "float32"), np.ones((1000, 1000), "float32")
    save_file({"a.weight": small, "b.weight": large}, tmp_path / "a")
    limits = Limits(array_bytes=large.nbytes - 1)
    with open_model_file(tmp_path / "a", limits) as file:
        kernels = {kernel.name: kernel for kernel in file.kernels if not kernel.note}
        np.testing.assert_array_equal(kernels["a/weight"].read(), small)
        with pytest.raises(UnsafeFileError, match="more than Limits"):
            kernels["b/weight"].read()


def test_a_kernel_cannot_be_read_after_the_file_is_closed(pytorch):
    with open_model_file(pytorch) as file:
        kernel = file.kernels[0]
    with pytest.raises(ModelFileError, match="only while its file is open"):
        kernel.read()


def test_a_padded_header_is_read(tmp_path):
    header = json.dumps({"c.weight": ENTRY}).encode() + b"   "
    assert as_stored(write(tmp_path / "a", header)).keys() == {"c/weight"}


def test_a_header_without_arrays_is_read(tmp_path):
    assert kernels_of(write(tmp_path / "a", b"{}", data=b"")) == []


def test_a_header_longer_than_the_file_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(struct.pack("<Q", 1000) + b"{}")
    assert_refused(tmp_path / "a", "should have 1,000 bytes", ModelFileError)


def test_a_header_above_the_limit_is_refused(tmp_path):
    path = write(tmp_path / "a", {"c.weight": ENTRY})
    match = "more than Limits.header_bytes=10"
    assert_refused(path, match, limits=Limits(header_bytes=10))


def test_a_file_with_an_impossible_header_length_is_not_recognised(tmp_path):
    (tmp_path / "a").write_bytes(b"abcdefgh{}")
    assert_refused(tmp_path / "a", "not a Keras model file", UnsupportedFileError)


def test_a_header_that_is_not_json_is_an_error(tmp_path):
    for header in (
        b'{"a": ',
        b"{} x",
        b'{"a": "\xff"}',
        b'{"a":' + b"[" * 200_000,
        b"{1: 2}",
    ):
        path = write(tmp_path / "a", header)
        assert_refused(path, "should be JSON, and is not", ModelFileError)


def test_a_header_in_another_encoding_is_an_error(tmp_path):
    header = json.dumps({"c.weight": ENTRY}).encode("utf-16-le")
    assert_refused(write(tmp_path / "a", header), "should be JSON", ModelFileError)


def test_a_header_of_too_many_values_is_refused(tmp_path):
    path = write(tmp_path / "a", {"c.weight": ENTRY})
    match = "more than Limits.json_values=5"
    assert_refused(path, match, limits=Limits(json_values=5))


def test_too_many_arrays_are_refused(tmp_path):
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = write(tmp_path / "a", {"a": empty, "b": empty, "c": empty}, data=b"")
    match = "3 arrays, more than Limits.arrays=2"
    assert_refused(path, match, limits=Limits(arrays=2))


def test_a_duplicate_name_is_refused(tmp_path):
    entry = json.dumps(ENTRY).encode()
    path = write(tmp_path / "a", b'{"a": %b, "a": %b}' % (entry, entry))
    assert_refused(path, "a duplicate key")


def test_metadata_other_than_text_is_refused(tmp_path):
    for metadata in ([], "text", {"format": 1}, {"a": {"b": "c"}}):
        path = write(tmp_path / "a", {"__metadata__": metadata, "a": ENTRY})
        assert_refused(path, "__metadata__ should contain only texts")


def test_an_invalid_entry_is_refused(tmp_path):
    for changes, match in (
        ({"shape": [3, 5]}, "48 bytes, which do not fit its shape and type"),
        ({"dtype": "F64"}, "48 bytes, which do not fit its shape and type"),
        ({"shape": [2**62, 2**62]}, "do not fit its shape"),
        ({"shape": [2**62] * 1000 + [0]}, "do not fit its shape"),
        ({"dtype": "F4", "shape": [95]}, "do not fit its shape"),
        ({"shape": [-3, -4]}, "an invalid shape"),
        ({"shape": [3, 4.0]}, "an invalid shape"),
        ({"shape": [True, 12]}, "an invalid shape"),
        ({"shape": [10**30]}, "an invalid shape"),
        ({"shape": "34"}, "an invalid shape"),
        ({"data_offsets": [48, 0]}, "invalid data_offsets"),
        ({"data_offsets": [0]}, "invalid data_offsets"),
        ({"data_offsets": [-48, 0]}, "invalid data_offsets"),
        ({"data_offsets": [8, 56]}, "leaves a gap after"),
        ({"more": 1}, "other fields than dtype, shape and data_offsets"),
    ):
        path = write(tmp_path / "a", {"c.weight": ENTRY | changes})
        assert_refused(path, f"array 'c.weight' .*{match}")


def test_an_entry_without_its_fields_is_refused(tmp_path):
    for entry in (None, [], {"dtype": "F32"}):
        path = write(tmp_path / "a", {"c.weight": entry})
        assert_refused(path, "array 'c.weight' has other fields")


def test_an_unknown_type_is_not_supported(tmp_path):
    for dtype in ("F128", ["F32"]):
        path = write(tmp_path / "a", {"c": ENTRY | {"dtype": dtype}})
        match = "array 'c' has the unknown type"
        assert_refused(path, match, UnsupportedFileError)


def test_arrays_that_overlap_are_refused(tmp_path):
    second = {"dtype": "F32", "shape": [11], "data_offsets": [4, 48]}
    path = write(tmp_path / "a", {"a": ENTRY, "b": second})
    assert_refused(path, "array 'b' overlaps the array before it")


def test_a_gap_between_arrays_is_refused(tmp_path):
    first = {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}
    second = {"dtype": "F32", "shape": [6], "data_offsets": [24, 48]}
    path = write(tmp_path / "a", {"a": first, "b": second})
    assert_refused(path, "array 'b' leaves a gap after")


def test_bytes_after_the_arrays_are_refused(tmp_path):
    path = write(tmp_path / "a", {"c": ENTRY}, BYTES + b"hidden")
    assert_refused(path, "6 bytes at its end belong to no array")


def test_a_truncated_file_is_an_error(tmp_path):
    path = write(tmp_path / "a", {"c": ENTRY}, BYTES[:-1])
    assert_refused(path, "It may be truncated", ModelFileError)


def test_a_file_cut_off_at_any_byte_is_an_error(pytorch):
    whole = pytorch.read_bytes()
    for size in range(len(whole)):
        pytorch.write_bytes(whole[:size])
        with pytest.raises(ModelFileError):
            kernels_of(pytorch)


def test_a_file_that_became_shorter_is_an_error(tmp_path):
    save_file({"c.weight": np.ones((50, 50), "float32")}, tmp_path / "a")
    with open_model_file(tmp_path / "a") as file:
        with (tmp_path / "a").open("r+b") as target:
            target.truncate(5000)
        with pytest.raises(ModelFileError, match="shorter"):
            file.kernels[0].read()


def test_the_safetensors_package_refuses_a_gap_too(tmp_path):
    from safetensors import SafetensorError, safe_open

    hole = {"c.weight": ENTRY | {"data_offsets": [8, 56]}}
    path = write(tmp_path / "a", hole, bytes(56))
    with pytest.raises(SafetensorError), safe_open(path, "np"):
        pass
