"""Anchors that are measured, checked against the second moment as a whole."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wm import measure_anchor

pytestmark = pytest.mark.backends

WIDTH = 120


def inputs(count=900, scale=None):
    """Vectors of 120 features along random axes, most of them weak."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))
    scale = 0.85 ** np.arange(WIDTH) if scale is None else scale
    return (rng.normal(size=(count, WIDTH)) * scale @ axes.T).astype(np.float32)


def dense_model():
    return keras.Sequential(
        [keras.Input((WIDTH,)), layers.Dense(64, name="hidden"), layers.Dense(3)]
    )


def test_gains_and_directions_are_those_of_the_second_moment():
    x = inputs()
    anchor = measure_anchor(dense_model(), "hidden", x)
    values, vectors = np.linalg.eigh(x.T.astype(np.float64) @ x / len(x))
    values, vectors = values[::-1], vectors[:, ::-1]
    mean = np.square(x).mean(dtype=np.float64)
    energies = np.minimum(1 + 3 * values / mean, 32)
    count = len(anchor.gains)
    np.testing.assert_allclose((1 + anchor.gains) ** 2, energies[:count], rtol=0.01)
    np.testing.assert_allclose(energies[count:], 1, rtol=1e-6)
    assert energies[0] == 32 > energies[5]
    along = np.abs(np.sum(anchor.directions * vectors[:, :count], axis=0))
    # Half precision, and the weakest directions have neighbours that are as weak.
    np.testing.assert_allclose(along[:12], 1, atol=2e-3)
    np.testing.assert_allclose(
        anchor.directions.T @ anchor.directions, np.eye(count), atol=5e-3
    )


@pytest.mark.parametrize("rank", [1, 5])
def test_inputs_of_a_low_rank_have_no_other_directions(rank):
    x = inputs(scale=np.arange(WIDTH) < rank)
    anchor = measure_anchor(dense_model(), "hidden", x)
    assert anchor.directions.shape == (WIDTH, rank)
    assert np.all(anchor.gains > 1)


def test_a_kernel_with_few_inputs_has_as_many_directions():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(16, 3, padding="same", name="first")]
    )
    x = np.random.default_rng(1).random((20, 8, 8, 1)).astype(np.float32)
    anchor = measure_anchor(model, "first", x)
    assert anchor.directions.shape == (9, 9) and anchor.size == 9
    # The pixels have a mean of 1/2, so the mean of a patch is the main direction.
    assert np.ptp(anchor.directions[:, 0]) < 0.15
    assert anchor.gains[0] > 2 * anchor.gains[1]


def test_a_wide_kernel_has_its_128_main_directions():
    x = np.random.default_rng(3).normal(size=(600, 300)).astype(np.float32)
    x[:, 128:] *= 0.01
    model = keras.Sequential([keras.Input((300,)), layers.Dense(8, name="hidden")])
    anchor = measure_anchor(model, "hidden", x)
    assert anchor.directions.shape == (300, 128)
    # The subspace of the features that are not small.
    assert np.square(anchor.directions[:128]).sum() == pytest.approx(128, rel=1e-2)


def test_the_examples_are_chosen_from_all_and_not_from_the_first():
    """The first 4,096 rows alone would show one half of the features."""
    x = inputs(9000, scale=np.ones(WIDTH))
    x[:4500, : WIDTH // 2] = 0
    x[4500:, WIDTH // 2 :] = 0
    anchor = measure_anchor(dense_model(), "hidden", x)
    assert np.ptp(anchor.gains) < 0.5


def test_an_anchor_of_a_projection_to_heads_fits_its_kernel():
    attention = layers.MultiHeadAttention(2, 8, name="attention")
    tokens = keras.Input((5, 24))
    model = keras.Model(tokens, attention(tokens, tokens))
    x = np.random.default_rng(2).normal(size=(30, 5, 24)).astype(np.float32)
    query = measure_anchor(model, attention._query_dense, x)
    assert (query.before, len(query.directions), query.after) == (1, 24, 2)
    output = measure_anchor(model, attention._output_dense, x)
    assert (output.before, len(output.directions), output.after) == (1, 16, 1)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_useless_inputs_are_refused(value):
    x = np.full((10, WIDTH), value, np.float32)
    with pytest.raises(ValueError, match=r"'hidden' finite inputs.*10 rows"):
        measure_anchor(dense_model(), "hidden", x)
