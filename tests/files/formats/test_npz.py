"""Weights in NumPy's format, which are pickles that nobody unpickles."""

import io
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from keras_wm.errors import ModelFileError, UnsafeFileError, UnsupportedFileError
from keras_wm.files import Limits, open_model_file
from keras_wm.files.formats.inert_pickle import Call, Name, read_pickle
from tests.files.written import KERNEL, OBJECT, config_of, read_kernels, write_npz


def refused(path, match, error=UnsafeFileError, **options):
    with pytest.raises(error, match=match) as caught:
        read_kernels(path, **options)
    return str(path) in str(caught.value)


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.backends
@pytest.mark.parametrize(("name", "zipped"), [("a.keras", True), ("folder", False)])
def test_what_keras_writes_is_read_without_pytorch_and_refused_with_it(
    tmp_path, name, zipped
):
    import keras
    from keras.src.saving.saving_lib import save_model

    layers = keras.layers
    narrow = layers.Dense(2, name="narrow")
    encoder = keras.Sequential([keras.Input((4,)), narrow], name="encoder")
    first = layers.Dense(4, name="first", kernel_regularizer="l2")
    model = keras.Sequential([keras.Input((3,)), first, layers.Dropout(0.1), encoder])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    save_model(model, tmp_path / name, weights_format="npz", zipped=zipped)
    if keras.backend.backend() == "torch":
        match = "pickled as PyTorch does it, .* weights_format='h5'"
        assert refused(tmp_path / name, match, UnsupportedFileError)
        return
    found = read_kernels(tmp_path / name)
    assert found.keys() == {"first/0", "encoder/narrow/0"}
    for kernel, layer in zip(found.values(), (first, narrow), strict=True):
        expected = keras.ops.convert_to_numpy(layer.kernel)
        np.testing.assert_array_equal(kernel, expected)


@pytest.mark.parametrize("protocol", [3, 4])
def test_an_array_is_read_from_a_pickle_of_each_protocol_that_numpy_uses(
    tmp_path, protocol
):
    layers = {"layers/dense": {"0": KERNEL, "1": KERNEL[0]}}
    path = write_npz(tmp_path / "a.npz", layers, protocol=protocol)
    np.testing.assert_array_equal(read_kernels(path)["dense/0"], KERNEL)


def test_weights_alone_are_named_by_their_path(tmp_path):
    path = write_npz(tmp_path / "a", {"layers/dense_1": {"0": KERNEL}})
    with open_model_file(path) as file:
        (kernel,) = file.kernels
        assert file.format == "Keras weights (.weights.npz)"
    assert (kernel.name, kernel.path) == ("dense_1/0", "layers/dense_1.npy/0")
    assert (kernel.shape, kernel.dtype) == ((3, 4), "float32")


def test_weights_in_a_folder_get_the_names_of_its_config(tmp_path):
    path = tmp_path / "model.weights.npz"
    write_npz(path, {"layers/dense": {"0": KERNEL}})
    (tmp_path / "config.json").write_bytes(config_of(("Dense", "mine")))
    assert read_kernels(tmp_path).keys() == {"mine/0"}


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ml_dtypes.bfloat16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_of_every_type_and_order_are_read_exactly(tmp_path, dtype, order):
    array = np.asarray(KERNEL.astype(dtype), order=order)
    found = read_kernels(write_npz(tmp_path / "a", {"layers/d": {"0": array}}))
    np.testing.assert_array_equal(found["d/0"], KERNEL)


def test_what_is_no_float_array_of_two_axes_is_no_kernel(tmp_path):
    variables = {
        "ints": np.ones((2, 2), "int32"),
        "vector": np.ones(2, "float32"),
        "nothing": np.ones((0, 2), "float32"),
        "other_order_of_bytes": np.ones((2, 2), ">f4"),
    }
    assert read_kernels(write_npz(tmp_path / "a", {"layers/d": variables})) == {}


def test_state_of_the_optimizer_is_not_even_looked_at(tmp_path):
    layers = {"layers/d": {"0": KERNEL}, "optimizer": {"0": Evil()}}
    assert read_kernels(write_npz(tmp_path / "a", layers)).keys() == {"d/0"}


@pytest.mark.parametrize(
    "variables",
    [{"0": Evil()}, Evil(), [Evil()], {"0": {"_value": Evil()}}, {Evil(): KERNEL}],
    ids=["variable", "layer", "list", "nested", "key"],
)
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch, variables):
    monkeypatch.chdir(tmp_path)
    path = write_npz(tmp_path / "a", {"layers/d": variables})
    assert refused(path, "Pickles can run code|keys that are no names")
    assert not (tmp_path / "unpickled").exists()
    # It would have been run.
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("layers/d.npy").partition(b"\n")[2]
    pickle.loads(pickled)  # noqa: S301
    assert (tmp_path / "unpickled").exists()


def test_a_pickle_is_followed_on_paper_only():
    pickled = pickle.dumps(Evil(), 4)
    followed = read_pickle(io.BytesIO(pickled), len(pickled), iter(range(100)))
    assert isinstance(followed, Call)
    assert isinstance(followed.function, Name)
    assert followed.function.name.endswith(".mkdir")
    assert followed.arguments == ("unpickled",)


@pytest.mark.parametrize(
    ("instructions", "match"),
    [
        (b"i", "the instruction INST"),
        (b"P0\n.", "the instruction PERSID"),
        (b"\x820.", "the instruction EXT1"),
        (b"\xff", "the instruction none"),
        (b"N}b.", "changes what it did not make"),
        (b"NNa.", "appends to what is no list"),
        (b"]NNs.", "keys that are no names"),
        (b"}NNs.", "keys that are no names"),
        (b"B\xff\xff\xff\xff.", "more bytes than the file has"),
        (b"X\xd0\x07\x00\x00" + b"a" * 2000, "a text of 2,000 bytes"),
        ((b"X\0\x04\0\0" + b"a" * 1024) * 20_000, "more than 16,777,216 letters"),
        (b"N.", "not as Keras does it"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_pickle_of_other_instructions_is_refused(tmp_path, instructions, match):
    path = write_npz(tmp_path / "a", {"layers/d": instructions})
    assert refused(path, match)


@pytest.mark.parametrize(
    "instructions",
    [b"", b".", b"a", b"t.", b"\x85\x85.", b"h\x09.", b"}(Nu.", b"\x8c\x01\xff."],
    ids=repr,
)
def test_a_pickle_that_makes_no_sense_is_an_error(tmp_path, instructions):
    path = write_npz(tmp_path / "a", {"layers/d": instructions})
    with pytest.raises(ModelFileError):
        read_kernels(path)


def test_a_pickle_without_end_is_refused(tmp_path):
    path = write_npz(tmp_path / "a", {"layers/d": b"N" * 1000})
    match = "more instructions than Limits.pickle_steps"
    assert refused(path, match, limits=Limits(pickle_steps=500))


def test_an_array_of_other_objects_is_refused(tmp_path):
    header = OBJECT | {"shape": (1,)}
    path = write_npz(tmp_path / "a", {"layers/d": {"0": KERNEL}}, header)
    assert refused(path, "not as Keras does it")


def test_an_array_of_another_size_than_its_bytes_is_refused(tmp_path):
    pickled = pickle.dumps(np.asarray({"0": KERNEL}, dtype=object), 4)
    # The shape, as small numbers.
    assert pickled.count(b"K\x03K\x04\x86") == 1
    spoilt = pickled.replace(b"K\x03K\x04\x86", b"K\x03K\x05\x86")
    path = write_npz(tmp_path / "a", {"layers/d": spoilt})
    assert refused(path, "'layers/d.npy/0' is pickled, and not as Keras does it")


@pytest.mark.parametrize(
    "shape",
    [
        b"(" + b"\x8a\xff" + b"\x7f" * 255 + b"K\x04t",
        b"(" + b"K\x02" * 1000 + b"t",
        b"(J\xff\xff\xff\xffK\x04t",
        b"(\x88K\x0ct",
    ],
    ids=["long", "many", "negative", "truth"],
)
def test_a_shape_that_is_none_is_refused(tmp_path, shape):
    pickled = pickle.dumps(np.asarray({"0": KERNEL}, dtype=object), 4)
    spoilt = pickled.replace(b"K\x03K\x04\x86", shape)
    path = write_npz(tmp_path / "a", {"layers/d": spoilt})
    assert refused(path, "'layers/d.npy/0' is pickled, and not as Keras does it")


def test_one_array_for_two_variables_is_refused(tmp_path):
    path = write_npz(tmp_path / "a", {"layers/d": {"0": KERNEL, "1": KERNEL}})
    assert refused(path, "'layers/d.npy/1' is pickled, and not as Keras does it")


def test_deflated_weights_are_read(tmp_path):
    layers = {"layers/d": {"0": KERNEL}}
    path = write_npz(tmp_path / "a", layers, method=zipfile.ZIP_DEFLATED)
    np.testing.assert_array_equal(read_kernels(path)["d/0"], KERNEL)


def test_deflated_weights_that_are_too_large_together_are_refused(tmp_path):
    layers = {f"layers/d_{i}": {"0": KERNEL + i} for i in range(20)}
    path = write_npz(tmp_path / "a", layers, method=zipfile.ZIP_DEFLATED)
    limits = Limits(inflated_bytes=4000)
    assert refused(path, "more than the [0-9]+ allowed", limits=limits)


def test_plain_arrays_are_not_a_model(tmp_path):
    np.savez(tmp_path / "a.npz", kernel=KERNEL)
    match = "an archive of NumPy arrays"
    assert refused(tmp_path / "a.npz", match, UnsupportedFileError)
