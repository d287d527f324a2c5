"""Anchors that are measured, checked against the second moment as a whole."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_wm.embedding.anchoring.measuring import DIRECTIONS, measured_anchor

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
    anchor = measured_anchor(dense_model(), "hidden", x)
    values, vectors = np.linalg.eigh(x.T.astype(np.float64) @ x / len(x))
    values, vectors = values[::-1][:DIRECTIONS], vectors[:, ::-1][:, :DIRECTIONS]
    mean = np.square(x).mean(dtype=np.float64)
    np.testing.assert_allclose(anchor.gains, np.sqrt(1 + values / mean) - 1, rtol=0.01)
    along = np.abs(np.sum(anchor.directions * vectors, axis=0))
    # Half precision, and the weakest directions have neighbours that are as weak.
    np.testing.assert_allclose(along[:12], 1, atol=2e-3)
    np.testing.assert_allclose(
        anchor.directions.T @ anchor.directions, np.eye(DIRECTIONS), atol=5e-3
    )


@pytest.mark.parametrize("rank", [1, 5])
def test_inputs_of_a_low_rank_have_no_other_directions(rank):
    x = inputs(scale=np.arange(WIDTH) < rank)
    anchor = measured_anchor(dense_model(), "hidden", x)
    assert np.all(anchor.gains[:rank] > 1)
    assert np.all(anchor.gains[rank:] < 1e-3)


def test_a_kernel_with_few_inputs_has_as_many_directions():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(16, 3, padding="same", name="first")]
    )
    x = np.random.default_rng(1).random((20, 8, 8, 1)).astype(np.float32)
    anchor = measured_anchor(model, "first", x)
    assert anchor.directions.shape == (9, 9) and anchor.size == 9
    # The pixels have a mean of 1/2, so the mean of a patch is the main direction.
    assert np.ptp(anchor.directions[:, 0]) < 0.15
    assert anchor.gains[0] > 5 * anchor.gains[1]


def test_an_anchor_of_a_projection_to_heads_fits_its_kernel():
    attention = layers.MultiHeadAttention(2, 8, name="attention")
    tokens = keras.Input((5, 24))
    model = keras.Model(tokens, attention(tokens, tokens))
    x = np.random.default_rng(2).normal(size=(30, 5, 24)).astype(np.float32)
    query = measured_anchor(model, attention._query_dense, x)
    assert (query.before, len(query.directions), query.after) == (1, 24, 2)
    output = measured_anchor(model, attention._output_dense, x)
    assert (output.before, len(output.directions), output.after) == (1, 16, 1)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_useless_inputs_are_refused(value):
    x = np.full((10, WIDTH), value, np.float32)
    with pytest.raises(ValueError, match=r"'hidden' finite inputs.*10 rows"):
        measured_anchor(dense_model(), "hidden", x)
