"""Rotations inside attention."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wm.research.attacks.rotation import HEAD_ROTATION, random_rotation
from tests.research.attacks.networks import assert_outputs, outputs_of, with_weights

ATTENTION = {
    "multi-head": lambda: layers.MultiHeadAttention(3, 8, value_dim=6),
    "without bias": lambda: layers.MultiHeadAttention(3, 8, use_bias=False),
    "grouped": lambda: layers.GroupQueryAttention(8, 6, 2),
}


def transformer(kind):
    inputs = keras.Input((5, 24))
    attention = ATTENTION[kind]()
    x = layers.LayerNormalization()(inputs + attention(inputs, inputs))
    return with_weights(keras.Model(inputs, layers.Dense(3)(x))), attention


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_the_function_stays_and_the_kernels_of_heads_change(kind, share):
    model, attention = transformer(kind)
    rotated = HEAD_ROTATION(model, strength=share)
    assert_outputs(rotated, outputs_of(model))
    pairs = zip(attention.weights, rotated.layers[1].weights, strict=True)
    for old, new in pairs:
        is_output_bias = old is attention._output_dense.bias
        assert np.allclose(old, new, atol=1e-4) == is_output_bias
        # A rotation keeps the size of the weights.
        assert np.linalg.norm(new) == pytest.approx(np.linalg.norm(old), rel=1e-5)


def test_random_rotations_are_rotations_and_powers_of_each_other():
    whole, half = (
        random_rotation(np.random.default_rng(3), 7, share) for share in (1.0, 0.5)
    )
    np.testing.assert_allclose(whole @ whole.T, np.eye(7), atol=1e-12)
    assert np.linalg.det(whole) == pytest.approx(1)
    np.testing.assert_allclose(half @ half, whole, atol=1e-10)


def test_networks_without_attention_are_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="plain")
    with pytest.raises(
        ValueError, match=r"MultiHeadAttention.*'plain', which has none"
    ):
        HEAD_ROTATION(model)
