"""safetensors files, written by the package of that name or spoilt by hand."""

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
from tests.marked_model import LAYER

ARRAY = np.arange(12, dtype="float32").reshape(3, 4)
BYTES = ARRAY.tobytes()
ENTRY = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}


def write(path, header, data=BYTES):
    """A file of that header, which need not fit the data; returns its path."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def kernels_of(path, **options):
    """All readings of a file, as (name, note, array)."""
    with open_model_file(path, **options) as file:
        return [(kernel.name, kernel.note, kernel.read()) for kernel in file.kernels]


def as_stored(path):
    return {name: array for name, note, array in kernels_of(path) if not note}


def refused(path, match, error=UnsafeFileError, **options):
    with pytest.raises(error, match=match) as caught:
        kernels_of(path, **options)
    return str(path) in str(caught.value)


@pytest.fixture
def pytorch(tmp_path):
    """A file as PyTorch's users write it."""
    names = ["encoder.c1.weight", "encoder.c2.weight", "head/kernel", "top"]
    arrays = {name: ARRAY + index for index, name in enumerate(names)}
    save_file(arrays, tmp_path / "a.bin", metadata={"format": "pt"})
    return tmp_path / "a.bin"


def test_every_array_is_read_as_it_is_stored(pytorch):
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


def test_a_kernel_tells_where_it_is_and_what_it_is(pytorch):
    with open_model_file(pytorch) as file:
        kernel, other = file.kernels[:2]
    assert (kernel.layer, kernel.variable) == ("encoder.c1", "weight")
    assert (kernel.path, kernel.dtype) == ("encoder.c1.weight", "float32")
    assert (kernel.shape, other.shape) == ((3, 4), (4, 3))
    assert (kernel.note, "PyTorch" in other.note) == ("", True)


@pytest.mark.parametrize("name", ["c1", "encoder.c1", "encoder/c1", "c1/weight"])
def test_dots_and_slashes_both_name_a_layer(pytorch, name):
    with open_model_file(pytorch) as file:
        chosen = select(file.kernels, name, "it")
    assert {kernel.name for kernel in chosen} == {"encoder.c1/weight"}


def test_a_name_with_slashes_for_dots_that_is_of_no_layer_is_an_error(pytorch):
    with (
        open_model_file(pytorch) as file,
        pytest.raises(LayerNotFoundError, match="encoder/c3"),
    ):
        select(file.kernels, "encoder/c3", "it")


@pytest.mark.parametrize(
    ("stored", "axes"),
    [
        ((3, 2), [(0, 1), (1, 0)]),
        ((4, 3, 2), [(0, 1, 2), (2, 1, 0)]),
        ((5, 4, 3, 2), [(0, 1, 2, 3), (2, 3, 1, 0)]),
        ((6, 5, 4, 3, 2), [(0, 1, 2, 3, 4), (2, 3, 4, 1, 0)]),
        ((5, 1, 3, 2), [(0, 1, 2, 3), (2, 3, 1, 0), (2, 3, 0, 1)]),
        ((5, 1, 3), [(0, 1, 2), (2, 1, 0), (2, 0, 1)]),
        ((2, 1, 1, 1, 1, 2), [(0, 1, 2, 3, 4, 5)]),
    ],
)
def test_an_array_is_read_in_each_order_of_its_axes(tmp_path, rng, stored, axes):
    array = rng.normal(size=stored).astype("float32")
    save_file({"c.weight": array}, tmp_path / "a")
    readings = kernels_of(tmp_path / "a")
    assert len({note for _, note, _ in readings}) == len(readings) == len(axes)
    for (_, _, found), order in zip(readings, axes, strict=True):
        np.testing.assert_array_equal(found, array.transpose(order))


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_as_pytorch_defines_it_is_the_same_in_keras(
    tmp_path, rng, depthwise
):
    import keras

    theirs = rng.normal(size=(3, 1 if depthwise else 3, 2, 2)).astype("float32")
    image = rng.normal(size=(3, 5, 5)).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(image, (2, 2), axis=(1, 2))
    axes = "lst,lijst->lij" if depthwise else "ldst,dijst->lij"
    expected = np.einsum(axes, theirs[:, 0] if depthwise else theirs, windows)
    save_file({"c.weight": theirs}, tmp_path / "a")
    kernel = kernels_of(tmp_path / "a")[2 if depthwise else 1][2]
    inputs = image.transpose(1, 2, 0)[None]
    convolve = keras.ops.depthwise_conv if depthwise else keras.ops.conv
    found = keras.ops.convert_to_numpy(convolve(inputs, kernel))
    np.testing.assert_allclose(found[0].transpose(2, 0, 1), expected, atol=1e-5)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (3, 2, 0, 1)])
@pytest.mark.parametrize("layer", ["net.wide", None])
def test_a_mark_is_found_whichever_way_the_axes_are(tmp_path, marked, axes, layer):
    from keras_wm import verify

    kernel = np.asarray(marked.model.get_layer(LAYER).kernel).transpose(axes)
    arrays = {"net.wide.weight": kernel, "net.head.weight": np.ones((4, 32))}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(arrays, tmp_path / "a")
    report = verify(tmp_path / "a", marked.key, layer=layer)
    assert report.marked
    assert report.layer == "net.wide/weight"
    assert ("PyTorch" in report.kernel_note) == (axes != (0, 1, 2, 3))


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
    real = ~np.isnan(found)
    signs = np.signbit(array.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(found)[real], signs[real])


def test_double_precision_is_kept(tmp_path):
    array = np.array([[1 + 2**-50, 2.0]])
    save_file({"c.weight": array}, tmp_path / "a")
    found = as_stored(tmp_path / "a")["c/weight"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, array)


def test_what_is_no_float_array_of_two_axes_is_no_kernel(tmp_path):
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
    assert refused(tmp_path / "a", "should have 1,000 bytes", ModelFileError)


def test_a_header_above_the_limit_is_refused(tmp_path):
    path = write(tmp_path / "a", {"c.weight": ENTRY})
    match = "more than Limits.header_bytes=10"
    assert refused(path, match, limits=Limits(header_bytes=10))


def test_a_length_that_no_header_has_is_not_taken_for_one(tmp_path):
    (tmp_path / "a").write_bytes(b"abcdefgh{}")
    assert refused(tmp_path / "a", "not a Keras model file", UnsupportedFileError)


@pytest.mark.parametrize(
    "header",
    [b'{"a": ', b"{} x", b'{"a": "\xff"}', b'{"a":' + b"[" * 200_000, b"{1: 2}"],
    ids=lambda header: repr(header)[:20],
)
def test_a_header_that_is_no_json_is_an_error(tmp_path, header):
    path = write(tmp_path / "a", header)
    assert refused(path, "should be JSON, and is not", ModelFileError)


def test_a_header_in_another_encoding_is_an_error(tmp_path):
    header = json.dumps({"c.weight": ENTRY}).encode("utf-16-le")
    assert refused(write(tmp_path / "a", header), "should be JSON", ModelFileError)


def test_a_header_of_too_many_values_is_refused(tmp_path):
    path = write(tmp_path / "a", {"c.weight": ENTRY})
    match = "more than Limits.json_values=5"
    assert refused(path, match, limits=Limits(json_values=5))


def test_too_many_arrays_are_refused(tmp_path):
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = write(tmp_path / "a", {"a": empty, "b": empty, "c": empty}, data=b"")
    match = "3 arrays, more than Limits.arrays=2"
    assert refused(path, match, limits=Limits(arrays=2))


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    entry = json.dumps(ENTRY).encode()
    path = write(tmp_path / "a", b'{"a": %b, "a": %b}' % (entry, entry))
    assert refused(path, "a duplicate key")


@pytest.mark.parametrize("metadata", [[], "text", {"format": 1}, {"a": {"b": "c"}}])
def test_metadata_that_is_no_text_is_refused(tmp_path, metadata):
    path = write(tmp_path / "a", {"__metadata__": metadata, "a": ENTRY})
    assert refused(path, "__metadata__ should contain only texts")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
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
    ],
    ids=str,
)
def test_an_entry_that_breaks_a_rule_is_refused(tmp_path, changes, match):
    path = write(tmp_path / "a", {"c.weight": ENTRY | changes})
    assert refused(path, f"array 'c.weight' .*{match}")


@pytest.mark.parametrize("entry", [None, [], {"dtype": "F32"}])
def test_an_entry_without_its_fields_is_refused(tmp_path, entry):
    path = write(tmp_path / "a", {"c.weight": entry})
    assert refused(path, "array 'c.weight' has other fields")


@pytest.mark.parametrize("dtype", ["F128", ["F32"]])
def test_an_unknown_type_is_not_supported(tmp_path, dtype):
    path = write(tmp_path / "a", {"c": ENTRY | {"dtype": dtype}})
    assert refused(path, "array 'c' has the unknown type", UnsupportedFileError)


def test_arrays_that_overlap_are_refused(tmp_path):
    second = {"dtype": "F32", "shape": [11], "data_offsets": [4, 48]}
    path = write(tmp_path / "a", {"a": ENTRY, "b": second})
    assert refused(path, "array 'b' overlaps the array before it")


def test_a_hole_between_arrays_is_refused(tmp_path):
    first = {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}
    second = {"dtype": "F32", "shape": [6], "data_offsets": [24, 48]}
    path = write(tmp_path / "a", {"a": first, "b": second})
    assert refused(path, "array 'b' leaves a gap after")


def test_bytes_behind_the_arrays_are_refused(tmp_path):
    path = write(tmp_path / "a", {"c": ENTRY}, BYTES + b"hidden")
    assert refused(path, "6 bytes at its end belong to no array")


def test_a_truncated_file_is_an_error(tmp_path):
    path = write(tmp_path / "a", {"c": ENTRY}, BYTES[:-1])
    assert refused(path, "It may be truncated", ModelFileError)


def test_a_file_that_is_cut_off_anywhere_is_an_error(pytorch):
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


def test_the_package_refuses_what_is_refused_here(tmp_path):
    from safetensors import SafetensorError, safe_open

    hole = {"c.weight": ENTRY | {"data_offsets": [8, 56]}}
    path = write(tmp_path / "a", hole, bytes(56))
    with pytest.raises(SafetensorError), safe_open(path, "np"):
        pass
