"""Attacks on each kernel that need no data."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wm.research.attacks.perturbation import (
    CLUSTERING,
    NOISE,
    QUANTIZATION,
    SHIFTING,
)
from keras_wm.research.attacks.pruning import (
    FILTER_PRUNING,
    GLOBAL_PRUNING,
    PRUNING,
    RANDOM_PRUNING,
)
from tests.research.attacks.networks import with_weights

ATTACKS = (
    *(NOISE, SHIFTING, QUANTIZATION, CLUSTERING),
    *(PRUNING, GLOBAL_PRUNING, RANDOM_PRUNING, FILTER_PRUNING),
)


@pytest.fixture(scope="module")
def network():
    return with_weights(
        keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(16, 3, name="first"),
                layers.BatchNormalization(),
                layers.Conv2D(32, 3, name="second"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(10, name="last"),
            ]
        )
    )


def kernel(model, layer="second"):
    return np.asarray(model.get_layer(layer).kernel)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_only_kernels_change_and_only_in_a_copy(network, attack):
    before = network.get_weights()
    attacked = attack(network, seed=1)
    for variable, original in zip(attacked.weights, before, strict=True):
        changed = not np.array_equal(variable, original)
        kept = attack is FILTER_PRUNING and "last" in variable.path
        assert changed == (variable.name == "kernel" and not kept)
    for weights, original in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, original)


def test_noise_is_measured_in_standard_deviations(network):
    noise = kernel(NOISE(network, strength=0.5, seed=1)) - kernel(network)
    assert noise.std() / kernel(network).std() == pytest.approx(0.5, rel=0.05)
    other = kernel(NOISE(network, strength=0.5, seed=2)) - kernel(network)
    # 4,608 pairs: within 5 standard deviations of a correlation of 0.
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 5 / 4608**0.5


def test_shifting_subtracts_the_mean_filter(network):
    mean = kernel(network).mean(axis=-1)
    for strength, left in ((0.5, 0.5), (1.0, 0.0), (2.0, -1.0)):
        shifted = kernel(SHIFTING(network, strength=strength)).mean(axis=-1)
        np.testing.assert_allclose(shifted, left * mean, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_quantized_weights_have_few_values_near_the_original(network, bits):
    quantized = kernel(QUANTIZATION(network, strength=bits))
    for number in range(32):
        weights = kernel(network)[..., number]
        rounded = quantized[..., number]
        assert len(np.unique(rounded)) <= 2**bits - 1
        step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
        assert np.abs(rounded - weights).max() <= step / 2 * (1 + 1e-5)


def test_sixteen_bits_are_float16(network):
    halves = kernel(QUANTIZATION(network, strength=16))
    np.testing.assert_array_equal(halves, np.float32(np.float16(kernel(network))))


def test_clusters_are_closer_than_equal_steps(network):
    weights = kernel(network)
    clustered = kernel(CLUSTERING(network, strength=3))
    assert len(np.unique(clustered)) <= 8
    edges = np.linspace(weights.min(), weights.max(), 9)
    middles = (edges[1:] + edges[:-1]) / 2
    steps = middles[np.argmin(np.abs(weights[..., None] - middles), axis=-1)]
    assert np.mean((clustered - weights) ** 2) < np.mean((steps - weights) ** 2)


def test_the_smallest_weights_are_pruned_in_each_kernel_or_in_all(network):
    layers = ("first", "second", "last")
    magnitudes = [np.abs(kernel(network, layer)).ravel() for layer in layers]
    threshold = np.quantile(np.concatenate(magnitudes), 0.5)
    for layer in layers:
        weights = kernel(network, layer)
        pruned = kernel(PRUNING(network, strength=0.5), layer)
        assert np.sum(pruned == 0) == round(0.5 * weights.size)
        assert np.abs(weights[pruned == 0]).max() <= np.abs(weights[pruned != 0]).min()
        together = kernel(GLOBAL_PRUNING(network, strength=0.5), layer)
        np.testing.assert_array_equal(together == 0, np.abs(weights) < threshold)


def test_random_pruning_ignores_magnitudes(network):
    pruned = kernel(RANDOM_PRUNING(network, strength=0.5, seed=1))
    weights = np.abs(kernel(network))
    assert np.sum(pruned == 0) == weights.size // 2
    # Pruned and kept weights are equally large: within 5 standard errors.
    gone, kept = weights[pruned == 0].mean(), weights[pruned != 0].mean()
    assert abs(gone - kept) < 5 * weights.std() * 2 / weights.size**0.5


def test_whole_filters_are_pruned(network):
    pruned = kernel(FILTER_PRUNING(network, strength=0.5))
    norms = np.abs(kernel(network)).sum(axis=(0, 1, 2))
    gone = ~pruned.any(axis=(0, 1, 2))
    assert gone.sum() == 16
    assert norms[gone].max() <= norms[~gone].min()
    np.testing.assert_array_equal(pruned[..., ~gone], kernel(network)[..., ~gone])


def test_a_strength_out_of_range_is_reported(network):
    with pytest.raises(ValueError, match=r"from 0\.01 to 1 .*'noise'.*strength=3"):
        NOISE(network, strength=3)
