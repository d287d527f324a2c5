"""Effective kernels of quantized layers and of layers with LoRA.

They are compared with Keras: with the layer's output for an identity matrix if only
weights are quantized, and otherwise with the original kernel, to half a step.
"""

import gc
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

import keras_wm
from keras_wm.errors import ModelFileError, UnsafeFileError
from keras_wm.files import Limits, open_model_file
from tests.conftest import fixed_key
from tests.files.written import weights_bytes

SUFFIXES = (".keras", ".weights.h5", ".h5")


def network(bias=True):
    """Returns a network with a Dense layer of odd width and EinsumDense layers."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((4, 10))
    x = layers.Dense(7, name="dense", use_bias=bias)(inputs)
    x = layers.EinsumDense(
        "abc,cde->abde",
        output_shape=(None, 2, 5),
        bias_axes="de" if bias else None,
        name="heads",
    )(x)
    x = layers.EinsumDense(
        "abcd,cde->abe", output_shape=(None, 9), name="join", bias_axes="e"
    )(x)
    return keras.Model(inputs, x, name="net")


def embedding(tie=True, rows=11, columns=6):
    """Returns a network that embeds words and applies the reverse embeddings."""
    import keras

    keras.utils.set_random_seed(4)
    inputs = keras.Input((4,), dtype="int32")
    layer = keras.layers.ReversibleEmbedding(
        rows, columns, tie_weights=tie, name="words"
    )
    return keras.Model(inputs, layer(layer(inputs), reverse=True), name="words_model")


def save(model, path):
    """Saves a model, or its weights, depending on the suffix; returns the path."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def quantize(model, mode):
    """Quantizes all layers of a model; with mode `"int4/4"` in groups of four."""
    import keras

    kind, _, block = mode.partition("/")
    options = {}
    if hasattr(keras.quantizers, "Int4QuantizationConfig"):
        if kind == "int4":
            groups = keras.quantizers.Int4QuantizationConfig(block_size=int(block))
            options = {"config": groups}
    elif block not in ("", "-1"):
        pytest.skip("Keras quantizes in groups from version 3.13 on")
    # Keras collects garbage after each layer, which takes half a second if all objects
    # of TensorFlow are examined.
    gc.freeze()
    for layer in model.layers:
        if type(layer).__name__ != "InputLayer":
            layer.quantize(kind, **options)
    gc.unfreeze()
    return model


def kernels_of(path, **options):
    """Reads all kernels of a file; returns the values and notes of each layer's."""
    kernels = {}
    with open_model_file(path, **options) as model_file:
        for kernel in model_file.kernels:
            values = kernel.read()
            assert values.shape == kernel.shape
            layer = kernel.layer.partition("/")[0]
            kernels.setdefault(layer, []).append((values, kernel.note))
    return kernels


def computed_kernel(layer, rows):
    """Returns a layer's output for an identity matrix, without its bias."""
    output = np.asarray(layer(np.eye(rows, dtype="float32")[None]))
    bias = np.asarray(layer(np.zeros((1, rows, rows), "float32")))
    return (output - bias)[0]


@pytest.fixture(scope="module", params=[True, False], ids=["bias", "no bias"])
def int8_network(request):
    """A quantized network, and its original kernels."""
    model = network(request.param)
    originals = {layer.name: np.asarray(layer.kernel) for layer in model.layers[1:]}
    return quantize(model, "int8"), originals


@pytest.fixture(
    scope="module",
    params=[
        (mode, bias)
        for mode in ("int4/4", "int4/-1", "int4/128")
        for bias in (True, False)
    ],
    ids=str,
)
def int4_network(request):
    mode, bias = request.param
    return quantize(network(bias), mode)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_int8_kernel_equals_the_original_to_half_a_step(
    int8_network, tmp_path, suffix
):
    model, originals = int8_network
    path = save(model, tmp_path / f"model{suffix}")
    for layer in model.layers[1:]:
        step = 1 / np.asarray(layer.kernel_scale).min()
        ((kernel, note),) = (
            (kernel, note)
            for name, kernels in kernels_of(path).items()
            if name in (layer.name, layer.path)
            for kernel, note in kernels
            if note.startswith("int8")
        )
        original = originals[layer.name]
        assert note == "int8, scales applied"
        assert kernel.shape == original.shape
        assert np.abs(kernel - original).max() <= step / 2 * 1.001


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_int4_kernel_equals_the_one_that_the_layer_computes_with(
    int4_network, tmp_path, suffix
):
    path = save(int4_network, tmp_path / f"model{suffix}")
    expected = computed_kernel(int4_network.get_layer("dense"), 10)
    (kernel,) = (
        kernel
        for kernel, note in kernels_of(path)["dense"]
        if kernel.shape == (10, 7) and note.startswith("int4")
    )
    np.testing.assert_allclose(kernel, expected, atol=1e-5)


def einsum(equation, inputs, outputs, mode, **options):
    """Returns a model with one EinsumDense layer, quantized."""
    import keras

    keras.utils.set_random_seed(8)
    tensor = keras.Input(inputs)
    layer = keras.layers.EinsumDense(
        equation, output_shape=outputs, name="heads", **options
    )
    return quantize(keras.Model(tensor, layer(tensor), name="net"), mode)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("mode", ["int8", "int4/-1", "int4/4"])
def test_a_kernel_with_filters_on_the_first_axis_is_read(tmp_path, suffix, mode):
    model = einsum("abde,ged->abg", (6, 2, 5), (None, 4), mode)
    path = save(model, tmp_path / f"model{suffix}")
    (kernel,) = (kernel for kernel, note in kernels_of(path)["heads"] if note)
    identity = np.eye(10, dtype="float32").reshape(1, 10, 2, 5)
    expected = np.asarray(model.get_layer("heads")(identity))[0]
    expected = expected.reshape(2, 5, 4).transpose(2, 1, 0)
    tolerance = 0.01 if mode == "int8" else 1e-5
    np.testing.assert_allclose(kernel, expected, atol=tolerance)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("axes", ["e", "d", "de"])
def test_a_bias_of_fewer_axes_determines_the_output_axes(tmp_path, suffix, axes):
    model = einsum("abc,cde->abde", (4, 7), (None, 2, 5), "int4/4", bias_axes=axes)
    path = save(model, tmp_path / f"model{suffix}")
    (kernel,) = (kernel for kernel, note in kernels_of(path)["heads"] if note)
    expected = computed_kernel(model.get_layer("heads"), 7)
    np.testing.assert_allclose(kernel, expected, atol=1e-5)


def test_scales_in_another_axis_order_are_transposed(tmp_path):
    model = einsum("abc,edc->abde", (4, 7), (None, 2, 5), "int8")
    path = save(model, tmp_path / "model.keras")
    ((kernel, _),) = kernels_of(path)["heads"]
    layer = model.get_layer("heads")
    codes = np.asarray(layer._kernel, "float32")
    scale = np.asarray(layer.kernel_scale).reshape(2, 5)
    np.testing.assert_allclose(kernel, codes / scale.T[..., None], rtol=1e-6)


def test_the_axes_of_attention_heads_come_from_the_bias(tmp_path):
    model = quantize(network(), "int4/4")
    path = save(model, tmp_path / "model.keras")
    (kernel,) = (kernel for kernel, note in kernels_of(path)["heads"] if note)
    expected = computed_kernel(model.get_layer("heads"), 7)
    assert kernel.shape == (7, 2, 5)
    np.testing.assert_allclose(kernel, expected, atol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", ["int8", "int4/4", "int4/-1"])
@pytest.mark.parametrize("columns", [6, 7])
def test_embeddings_equal_the_output_of_the_layer_for_each_word(
    tmp_path, suffix, mode, columns
):
    model = quantize(embedding(columns=columns), mode)
    path = save(model, tmp_path / f"model{suffix}")
    layer = model.get_layer("words")
    expected = np.asarray(layer(np.arange(11)[None]))[0]
    candidates = [
        kernel
        for kernel, _ in kernels_of(path)["words"]
        if kernel.shape == (11, columns)
    ]
    assert any(np.allclose(kernel, expected, atol=1e-6) for kernel in candidates)
    assert len(candidates) <= 2


@pytest.mark.parametrize("mode", ["int8", "int4/4", "int4/-1"])
def test_reverse_embeddings_are_a_kernel_too(tmp_path, mode):
    model = embedding(tie=False)
    layer = model.get_layer("words")
    original = np.asarray(layer.reverse_embeddings)
    path = save(quantize(model, mode), tmp_path / "model.keras")
    error = min(
        np.abs(kernel - original).max()
        for kernel, _ in kernels_of(path)["words"]
        if kernel.shape == original.shape
    )
    assert error < (0.002 if mode == "int8" else 0.02)


def test_the_mode_in_the_config_leaves_one_candidate(tmp_path):
    model = quantize(network(), "int8")
    whole = save(model, tmp_path / "model.keras")
    alone = save(model, tmp_path / "model.weights.h5")
    assert len(kernels_of(whole)["dense"]) == 1
    # Without the mode, the codes can also be pairs of four bits, for 20 or 19 inputs.
    shapes = [kernel.shape for kernel, _ in kernels_of(alone)["dense"]]
    assert shapes == [(10, 7), (20, 7), (19, 7)]


def test_int4_as_older_keras_packed_it_is_read(tmp_path):
    rng = np.random.default_rng(0)
    codes, scale = rng.integers(-8, 8, (10, 6)), rng.uniform(1, 2, 6).astype("float32")
    low, high = codes[0::2], codes[1::2]
    packed = ((low & 15) | ((high & 15) << 4)).astype("uint8").view("int8")
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = packed, scale
    kernels = {kernel.shape: kernel for kernel, _ in kernels_of(path)["dense"]}
    np.testing.assert_allclose(kernels[10, 6], codes / scale, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "axis", "scales"),
    [((7, 2, 5), 0, (1, 2, 5)), ((4, 5, 2), 1, (4, 1, 1)), ((2, 3, 8), 0, (1, 1, 8))],
)
def test_int4_of_many_axes_as_older_keras_packed_it_is_read(
    tmp_path, shape, axis, scales
):
    from keras.src import quantizers

    rng = np.random.default_rng(9)
    codes = rng.integers(-8, 8, shape).astype("int8")
    scale = rng.uniform(1, 2, scales).astype("float32")
    packed = np.asarray(quantizers.pack_int4(codes, axis=axis)[0])
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"], file["layers/dense/vars/1"] = packed, scale
    kernels = {kernel.shape: kernel for kernel, _ in kernels_of(path)["dense"]}
    np.testing.assert_allclose(kernels[shape], codes / scale, rtol=1e-6)


def test_float8_kernels_are_read_as_they_are(tmp_path):
    model = network()
    original = np.asarray(model.get_layer("dense").kernel)
    for layer in model.layers[1:]:
        layer.quantize("float8")
    for suffix in SUFFIXES:
        path = save(model, tmp_path / f"model{suffix}")
        ((kernel, note),) = kernels_of(path)["dense"]
        np.testing.assert_array_equal(kernel, original)
        assert note == ""


@pytest.mark.parametrize(("bits", "scales"), [(4, False), (8, False), (4, True)])
def test_gptq_and_awq_are_read_as_keras_computes_them(tmp_path, bits, scales):
    from keras import ops
    from keras.src import quantizers

    rng = np.random.default_rng(1)
    values = rng.integers(0, 2**bits, (7, 10)).astype("uint8")
    arrays = {
        "1": values,
        "2": rng.uniform(0.1, 1, (7, 3)).astype("float32"),
        "3": rng.integers(0, 2**bits, (7, 3)).astype("uint8"),
    }
    groups = (np.arange(10) // 4).astype("float32")
    expected = np.asarray(
        quantizers.quantizers.dequantize_with_sz_map(
            ops.cast(values, "float32"), arrays["2"], arrays["3"], groups
        )
    ).T
    if bits == 4:
        packed = quantizers.pack_int4(values, axis=0, dtype="uint8")
        arrays["1"] = np.asarray(packed[0])
    if scales:
        arrays["4"] = rng.uniform(0.5, 2, 10).astype("float32")
        expected = expected / arrays["4"][:, None]
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        for name, array in {"0": np.ones(7, "f4"), **arrays}.items():
            file[f"layers/dense/vars/{name}"] = array
        file[f"layers/dense/vars/{len(arrays) + 1}"] = groups
    ((kernel, note),) = kernels_of(path)["dense"]
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)
    assert note == f"{'awq' if scales else 'gptq'}, scales applied"


@pytest.mark.parametrize("scales", [False, True])
def test_half_the_range_replaces_zeros_that_keras_did_not_save(tmp_path, scales):
    rng = np.random.default_rng(2)
    values = rng.integers(0, 16, (8, 10)).astype("uint8")
    values[0, 0] = 15
    scale, groups = rng.uniform(0.1, 1, (8, 3)).astype("f4"), np.arange(10) // 4
    expected = ((values - 8.0) * scale[:, groups]).T
    packed = values[0::2] | values[1::2] << 4
    arrays = [np.ones(8, "f4"), packed, scale]
    if scales:
        arrays.append(rng.uniform(0.5, 2, 10).astype("f4"))
        expected = expected / arrays[-1][:, None]
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        for name, array in enumerate([*arrays, groups.astype("f4")]):
            file[f"layers/dense/vars/{name}"] = array
    ((kernel, note),) = kernels_of(path)["dense"]
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)
    assert "half the range for the lost zeros" in note


def test_the_axes_of_attention_heads_without_a_bias_come_from_the_config(tmp_path):
    model = quantize(network(bias=False), "int4/4")
    path = save(model, tmp_path / "model.keras")
    ((kernel, _),) = kernels_of(path)["heads"]
    assert kernel.shape == (7, 2, 5)
    expected = computed_kernel(model.get_layer("heads"), 7)
    np.testing.assert_allclose(kernel, expected, atol=1e-5)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lora_is_merged_in_every_format(tmp_path, suffix):
    import keras

    keras.utils.set_random_seed(5)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(5, name="dense"),
        ]
    )
    rng = np.random.default_rng(6)
    for name in ("conv", "dense"):
        layer = model.get_layer(name)
        layer.enable_lora(2, lora_alpha=3)
        layer.lora_kernel_b.assign(rng.normal(size=layer.lora_kernel_b.shape))
    path = save(model, tmp_path / f"model{suffix}")
    kernels = kernels_of(path)
    for name in ("conv", "dense"):
        ((kernel, note),) = kernels[name]
        expected = np.asarray(model.get_layer(name).kernel)
        np.testing.assert_allclose(kernel, expected, atol=1e-6)
        assert ("LoRA" in note) == (suffix == ".h5")


@pytest.mark.parametrize("mode", ["int8", "int4/4", "lora", "lora on int8"])
def test_a_model_in_memory_gives_the_same_scores_as_its_file(tmp_path, mode):
    model = network()
    if mode.endswith("int8") or mode.startswith("int4"):
        quantize(model, mode.removeprefix("lora on "))
    if mode.startswith("lora"):
        layer = model.get_layer("dense")
        layer.enable_lora(2, lora_alpha=5)
        factor = np.random.default_rng(7).normal(size=layer.lora_kernel_b.shape)
        layer.lora_kernel_b.assign(factor)
    path = save(model, tmp_path / "model.keras")
    key = fixed_key(16)
    in_memory = keras_wm.verify(model, key, "dense")
    in_file = keras_wm.verify(path, key, "dense")
    # Keras quantizes the kernel again when it merges the factors.
    np.testing.assert_allclose(in_memory.z, in_file.z, atol=0.05)
    assert mode.removesuffix("/4").split()[-1] in in_memory.finding.kernel_note.lower()


@pytest.mark.parametrize("mode", ["int8", "int4/-1", "int4/128"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mark_is_found_in_a_quantized_file(marked, tmp_path, mode, suffix):
    import keras

    kernel = np.asarray(marked.model.get_layer("wide").kernel).reshape(-1, 32)
    inputs = keras.Input((len(kernel),))
    layer = keras.layers.Dense(32, name="wide")
    model = keras.Model(inputs, layer(inputs))
    layer.kernel.assign(kernel)
    path = save(quantize(model, mode), tmp_path / f"model{suffix}")
    report = keras_wm.verify(path, marked.key)
    assert (report.verdict, report.ber) == ("proven", 0.0)
    assert mode.partition("/")[0] in repr(report)


@pytest.mark.parametrize("mode", ["int8", "int4/4", "lora"])
def test_a_safetensors_file_of_keras_gives_effective_kernels(tmp_path, mode):
    model = network()
    dense = model.get_layer("dense")
    if mode == "lora":
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
    else:
        quantize(model, mode)
    expected = dense.kernel if mode == "lora" else None
    path = tmp_path / "model.safetensors"
    save_file({w.path: np.asarray(w) for w in model.weights}, path)
    ((kernel, note), *_) = kernels_of(path)["dense"]
    if expected is None:
        (expected, _), *_ = kernels_of(save(model, tmp_path / "model.keras"))["dense"]
    np.testing.assert_allclose(kernel, np.asarray(expected), atol=1e-6)
    assert mode.partition("/")[0] in note.lower()


@pytest.mark.parametrize(
    "changes",
    [
        {"1": np.ones(5, "f4")},
        {"2": np.ones((2, 2), "i1")},
        {"0": np.ones((3, 5, 6), "i1")},
        {"1": np.ones((3, 4), "i1")},
    ],
    ids=["scale of no axis", "zero of no scale", "too many axes", "no scale"],
)
def test_integers_that_fit_no_mode_are_not_a_kernel(tmp_path, changes):
    arrays = {"0": np.ones((3, 4), "i1"), "1": np.ones(4, "f4")} | changes
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[f"layers/dense/vars/{name}"] = array
    assert kernels_of(path) == {}


@pytest.mark.parametrize("groups", [[0, 1, 2], [0, -1, 1], [0, np.nan, 1]])
def test_an_unknown_group_is_an_error(tmp_path, groups):
    path = tmp_path / "model.weights.h5"
    arrays = [np.ones((3, 2), "i1"), np.ones((2, 4), "f4"), np.ones((2, 4), "i1")]
    with h5py.File(path, "w") as file:
        for name, array in enumerate([*arrays, np.array(groups, "f4")]):
            file[f"layers/dense/vars/{name}"] = array
    with pytest.raises(ModelFileError, match=r"vars/3' names groups that .*vars/1'"):
        kernels_of(path)


def test_the_size_of_an_unpacked_kernel_is_bounded(tmp_path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.ones((30, 4), "i1")
        file["layers/dense/vars/1"] = np.ones(4, "f4")
    with pytest.raises(UnsafeFileError, match=r"unpacks to 480 bytes.*array_bytes=400"):
        kernels_of(path, limits=Limits(array_bytes=400))


def test_a_damaged_config_loses_only_the_mode(tmp_path):
    path = tmp_path / "model.keras"
    weights = weights_bytes(kernel=np.ones((3, 4), "i1"))
    scaled = tmp_path / "weights.h5"
    scaled.write_bytes(weights)
    with h5py.File(scaled, "r+") as file:
        file["layers/dense/vars/1"] = np.full(4, 2, "f4")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", b"{")
        archive.write(scaled, "model.weights.h5")
    assert [kernel.shape for kernel, _ in kernels_of(path)["c1"]] == [
        (3, 4),
        (6, 4),
        (5, 4),
    ]
