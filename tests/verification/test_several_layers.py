"""Joint tests of several kernels that carry the same message."""

import json

import numpy as np
import pytest
from scipy import stats

import keras_wm
from keras_wm.scheme.detection import detect, detect_jointly
from tests.conftest import fixed_key, unrelated_keys
from tests.marked_model import LAYER, with_mark


def jointly(kernels, key):
    return detect_jointly([(kernel, key) for kernel in kernels])


@pytest.fixture
def faint(rng):
    """Three kernels of two sizes, each with a faint mark."""
    key = fixed_key(64)
    shapes = [(3, 3, 8, 24), (3, 3, 8, 20), (40, 30)]
    kernels = [with_mark(rng.normal(size=shape), key, 0.16) for shape in shapes]
    return key, kernels


def test_the_score_is_the_sum_of_scores_over_its_standard_deviation(rng):
    # Scores in two kernels of one shape have a correlation, the cosine of the angle
    # between their vectors u. Scores in kernels of different shapes are independent.
    key = fixed_key(32)
    kernels = [rng.normal(size=shape) for shape in ((50, 20), (50, 20), (50, 12))]
    kernels[1] += 0.8 * kernels[0]
    z = np.array([detect(kernel, key).z for kernel in kernels])
    for bit in range(32):
        weights = key.for_shape((50, 20)).filter_weights[bit]
        u = [kernel @ weights for kernel in kernels[:2]]
        cosine = u[0] @ u[1] / np.linalg.norm(u[0]) / np.linalg.norm(u[1])
        expected = z[:, bit].sum() / np.sqrt(3 + 2 * cosine)
        assert jointly(kernels, key).z[bit] == pytest.approx(expected)


def test_a_mark_too_faint_in_each_kernel_is_found_in_all_of_them_jointly(faint):
    key, kernels = faint
    alone = [detect(kernel, key).log10_p for kernel in kernels]
    assert min(alone) > -9
    assert jointly(kernels, key).log10_p < -9


def test_a_copy_of_a_kernel_adds_no_evidence(rng):
    key, kernel = fixed_key(), rng.normal(size=(50, 20))
    once, twice = detect(kernel, key), jointly([kernel, 3 * kernel], key)
    np.testing.assert_allclose(twice.z, once.z)


def test_kernels_that_cancel_give_no_evidence(rng):
    key, kernel = fixed_key(), rng.normal(size=(50, 20))
    assert not jointly([kernel, -kernel], key).z.any()


def test_a_kernel_without_information_changes_nothing(rng):
    key, kernel = fixed_key(), rng.normal(size=(50, 20))
    found = jointly([np.zeros((60, 20)), kernel], key)
    np.testing.assert_allclose(found.z, detect(kernel, key).z)
    assert "equal" in jointly([np.zeros((60, 20))] * 2, key).problem


@pytest.mark.parametrize("filters", ["keyed", "mean"])
def test_scores_of_similar_unmarked_kernels_are_standard_normal(filters):
    # 200 keys of 32 bits: 6,400 scores. Kolmogorov-Smirnov at 1e-6; all is seeded.
    rng = np.random.default_rng(3)
    first = rng.standard_cauchy((60, 24)) + 5
    kernels = [first, first + rng.normal(size=first.shape), rng.normal(size=(45, 10))]
    keys = unrelated_keys(200, filters=filters)
    z = np.concatenate([jointly(kernels, key).z for key in keys])
    assert stats.kstest(z, "norm").pvalue > 1e-6


def test_p_values_of_sparse_projections_are_not_too_small():
    # Of 400 keys, more than 47 have p <= 1/20 with a probability below 1e-7.
    rng = np.random.default_rng(4)
    kernels = [np.abs(rng.normal(size=(80, 6))), np.abs(rng.normal(size=(80, 9)))]
    keys = unrelated_keys(400, 40, "direct", "mean")
    found = [jointly(kernels, key).log10_p for key in keys]
    assert np.mean(10.0 ** np.array(found) <= 0.05) <= 47 / 400


@pytest.fixture
def file(faint, tmp_path):
    """A model file with the three kernels, and the key."""
    import keras

    key, kernels = faint
    inputs = keras.Input((40,))
    layers = [
        keras.layers.Conv2D(24, 3, name="c1", use_bias=False),
        keras.layers.Conv2D(20, 3, name="c2", use_bias=False),
        keras.layers.Dense(30, name="dense", use_bias=False),
        keras.layers.Dense(2, name="logits"),
    ]
    pictures = keras.Input((8, 8, 8))
    model = keras.Model(
        [pictures, inputs],
        [layers[0](pictures), layers[1](pictures), layers[3](layers[2](inputs))],
    )
    for layer, kernel in zip(layers, kernels, strict=False):
        layer.kernel.assign(kernel)
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras", key


def test_a_list_of_layers_gives_one_p_value(file, faint):
    path, key = file
    found = keras_wm.verify(path, key, ["c1", "c2", "dense"])
    kernels = [kernel.astype(np.float32) for kernel in faint[1]]
    # The joint test, and each kernel by itself. All kernels that can hold the message
    # are read as one, so nothing was chosen but the better one of two ways to test.
    assert found.tried == 1 + 3
    assert found.log10_p == pytest.approx(jointly(kernels, key).log10_p + np.log10(2))
    assert found.marked
    assert not keras_wm.verify(path, key).marked
    assert found.layer == "c1/0, c2/0, dense/0"
    report = json.loads(json.dumps(found.to_dict()))
    for name, kernel in zip(["c1/0", "c2/0"], kernels, strict=False):
        alone = detect(kernel, key)
        assert report["parts"][name]["matches"] == alone.matches
        assert f"{alone.bits - alone.matches} bit errors" in repr(found)


def test_one_layer_in_a_list_is_that_layer(marked):
    path = marked.files[".keras"]
    alone = keras_wm.verify(path, marked.key, LAYER)
    listed = keras_wm.verify(path, marked.key, [LAYER, LAYER])
    assert listed.log10_p == pytest.approx(alone.log10_p + np.log10(2))


def test_every_layer_of_a_list_must_exist_and_hold_the_message(file):
    path, key = file
    with pytest.raises(keras_wm.LayerNotFoundError, match="'c3'"):
        keras_wm.verify(path, key, ["c1", "c3"])
    with pytest.raises(ValueError, match="Too many bits"):
        keras_wm.verify(path, fixed_key(1000), ["c1", "logits"])
    with pytest.raises(ValueError, match="Expected the names of layers"):
        keras_wm.verify(path, key, [])


def test_all_layers_are_tested_in_the_same_order_of_axes(faint, tmp_path):
    from safetensors.numpy import save_file

    key, kernels = faint
    arrays = {
        f"c{number}.weight": np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))
        for number, kernel in enumerate(kernels)
    }
    save_file(arrays, tmp_path / "model.safetensors")
    found = keras_wm.verify(tmp_path / "model.safetensors", key, ["c0", "c1", "c2"])
    log10_p = jointly(kernels, key).log10_p
    assert found.tried == 2 * (1 + 3)
    assert found.log10_p == pytest.approx(log10_p + np.log10(2 * 2))
    assert "PyTorch" in repr(found)
