"""Folding normalizations into the layers before them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from keras import layers

from keras_wm.research.attacks.fusion import FUSION, fold
from tests.research.attacks.networks import (
    BUILDERS,
    RECIPES,
    assert_outputs,
    built_from,
    outputs_of,
    separated,
    with_weights,
)


def normalizations(model):
    return [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, layers.BatchNormalization)
    ]


def chain(*stack):
    return with_weights(keras.Sequential([keras.Input((6, 6, 2)), *stack]))


@pytest.mark.backends
@pytest.mark.parametrize(
    "name, left",
    # In the papers' network, a block's second convolution is added to its input before
    # the next normalization, so it cannot be folded.
    [("wide residual", 4), ("plain", 1), ("separated", 0)],
)
def test_fewer_normalizations_give_the_same_outputs(name, left):
    network = with_weights(BUILDERS[name]())
    before = network.get_weights()
    fused = FUSION(network)
    assert_outputs(fused, outputs_of(network))
    assert len(normalizations(fused)) == left < len(normalizations(network))
    for weights, original in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, original)


def test_filters_and_biases_are_those_of_the_formula():
    network = chain(
        layers.Conv2D(4, 3, name="kept"), layers.BatchNormalization(epsilon=0.1)
    )
    kernel, bias, gamma, beta, mean, variance = map(np.asarray, network.weights)
    factor = gamma / np.sqrt(variance + 0.1)
    fused = fold(network)
    for weights, expected in zip(
        fused.get_layer("kept").get_weights(),
        (kernel * factor, factor * (bias - mean) + beta),
        strict=True,
    ):
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)
    assert len(fused.layers) == 1


def test_all_kinds_of_layers_and_normalizations_are_folded():
    for stack in (
        [layers.Conv2D(4, 3), layers.BatchNormalization(scale=False)],
        [layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(center=False)],
        [layers.Conv2D(4, 3, groups=2), layers.BatchNormalization(axis=3)],
        [layers.DepthwiseConv2D(3, depth_multiplier=3), layers.BatchNormalization()],
        [layers.Dense(5), layers.BatchNormalization(), layers.ReLU()],
        [layers.Flatten(), layers.Dense(5), layers.BatchNormalization()],
    ):
        network = chain(*stack)
        fused = fold(network)
        assert_outputs(fused, outputs_of(network))
        assert not normalizations(fused)


def test_a_nested_model_is_folded_too():
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, name="convolution"),
            layers.BatchNormalization(name="normalization"),
        ]
    )
    inputs = keras.Input((6, 6, 2))
    # These layers have the same names as the nested ones.
    x = layers.Conv2D(3, 1, name="convolution")(inputs)
    x = inner(layers.ReLU()(layers.BatchNormalization(name="normalization")(x)))
    network = with_weights(keras.Model(inputs, layers.Flatten()(x)))
    fused = fold(network)
    assert_outputs(fused, outputs_of(network))
    assert not normalizations(fused)


def both_used():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, layers.Add()([x, layers.BatchNormalization()(x)]))


def both_returned():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, [x, layers.BatchNormalization()(x)])


def called_twice():
    inputs = keras.Input((6, 6, 2))
    normalization = layers.BatchNormalization()
    x = normalization(layers.Conv2D(4, 1)(inputs))
    return keras.Model(inputs, normalization(layers.Conv2D(4, 1)(x)))


def always_training():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, layers.BatchNormalization()(x, training=True))


@pytest.mark.parametrize(
    "build",
    [
        both_used,
        both_returned,
        called_twice,
        always_training,
        lambda: chain(
            layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()
        ),
        # This normalizes rows of pixels, not channels.
        lambda: chain(layers.Conv2D(4, 3), layers.BatchNormalization(axis=1)),
        lambda: chain(layers.BatchNormalization(), layers.Conv2D(4, 3)),
        lambda: chain(layers.Conv2DTranspose(4, 3), layers.BatchNormalization()),
    ],
)
def test_only_exact_folds_are_made(build):
    with pytest.raises(ValueError, match=r"Expected .* directly after a convolution"):
        fold(build())


def test_a_second_fusion_has_nothing_to_fold():
    with pytest.raises(ValueError, match="which has none"):
        fold(fold(with_weights(separated())))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(recipe=RECIPES)
def test_random_architectures_keep_their_outputs(recipe):
    steps, end = recipe
    # At least the first convolution is followed by a normalization.
    network = built_from((["normalized", *steps], end))
    fused = fold(network)
    assert len(normalizations(fused)) < len(normalizations(network))
    assert_outputs(fused, outputs_of(network))
