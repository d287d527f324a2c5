"""Normalizations that are folded into the layers before them."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from keras import layers

from keras_wm.research.attacks.fusion import FUSION, fold
from tests.research.attacks.networks import (
    BUILDERS,
    RECIPES,
    assert_same_answers,
    made_by,
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
    # In the papers' network, second convolutions are added before they are normalized.
    [("wide residual", 4), ("plain", 1), ("separated", 0)],
)
def test_the_same_answers_come_with_fewer_normalizations(name, left):
    network = with_weights(BUILDERS[name]())
    before = [np.asarray(one) for one in network.weights]
    fused = FUSION(network)
    assert_same_answers(fused, network)
    assert len(normalizations(fused)) == left < len(normalizations(network))
    for one, was in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(one, was)


def test_filters_are_multiplied_and_shifted():
    network = chain(
        layers.Conv2D(4, 3, name="kept"), layers.BatchNormalization(epsilon=0.1)
    )
    kernel, bias, gamma, beta, mean, variance = map(np.asarray, network.weights)
    factor = gamma / np.sqrt(variance + 0.1)
    fused = fold(network)
    found = map(np.asarray, fused.get_layer("kept").weights)
    for one, expected in zip(
        found, (kernel * factor, factor * (bias - mean) + beta), strict=True
    ):
        np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-6)
    assert len(fused.layers) == 1


@pytest.mark.parametrize(
    "stack",
    [
        [layers.Conv2D(4, 3), layers.BatchNormalization(scale=False)],
        [layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(center=False)],
        [layers.Conv2D(4, 3, groups=2), layers.BatchNormalization(axis=3)],
        [layers.DepthwiseConv2D(3, depth_multiplier=3), layers.BatchNormalization()],
        [layers.Dense(5), layers.BatchNormalization(), layers.ReLU()],
        [layers.Flatten(), layers.Dense(5), layers.BatchNormalization()],
    ],
    ids=lambda stack: "-".join(type(one).__name__ for one in stack),
)
def test_all_kinds_of_layers_and_normalizations_are_folded(stack):
    network = chain(*stack)
    fused = fold(network)
    assert_same_answers(fused, network)
    assert not normalizations(fused)


def test_a_model_inside_is_folded_too():
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, name="convolution"),
            layers.BatchNormalization(name="normalization"),
        ]
    )
    inputs = keras.Input((6, 6, 2))
    # Of the same names as the layers inside.
    x = layers.Conv2D(3, 1, name="convolution")(inputs)
    x = inner(layers.ReLU()(layers.BatchNormalization(name="normalization")(x)))
    network = with_weights(keras.Model(inputs, layers.Flatten()(x)))
    fused = fold(network)
    assert_same_answers(fused, network)
    assert not normalizations(fused)


def both_used():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, layers.Add()([x, layers.BatchNormalization()(x)]))


def both_given():
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
        both_given,
        called_twice,
        always_training,
        lambda: chain(
            layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization()
        ),
        # Of each row of pixels, and not of each channel.
        lambda: chain(layers.Conv2D(4, 3), layers.BatchNormalization(axis=1)),
        lambda: chain(layers.BatchNormalization(), layers.Conv2D(4, 3)),
        lambda: chain(layers.Conv2DTranspose(4, 3), layers.BatchNormalization()),
    ],
)
def test_what_is_not_exact_is_not_folded(build):
    with pytest.raises(ValueError, match=r"Expected .* right behind a convolution"):
        fold(build())


def test_fusing_twice_finds_nothing_more():
    with pytest.raises(ValueError, match="which has none"):
        fold(fold(with_weights(separated())))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(recipe=RECIPES)
def test_no_network_answers_otherwise(recipe):
    steps, end = recipe
    # At least the first convolution has a normalization right behind it.
    network = made_by((["normalized", *steps], end))
    fused = fold(network)
    assert len(normalizations(fused)) < len(normalizations(network))
    assert_same_answers(fused, network)
