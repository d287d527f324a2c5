"""Compression to a low rank and to three values."""

import numpy as np
import pytest

from keras_wm.research.attacks.compression import (
    LOW_RANK,
    TERNARY,
    ternary,
    truncated,
)
from tests.research.attacks.trained import HEAD, MARKED, PICTURES, arrays, network


def test_the_matrix_of_lower_rank_is_the_closest():
    matrix = np.random.default_rng(0).normal(size=(30, 12))
    low = truncated(matrix, 0.25)
    assert np.linalg.matrix_rank(low) == 3
    # Eckart and Young: the squared error is the sum of the other squared values.
    lost = np.sum(np.linalg.svd(matrix, compute_uv=False)[3:] ** 2)
    assert np.sum((matrix - low) ** 2) == pytest.approx(lost)
    assert np.linalg.matrix_rank(truncated(matrix, 0.001)) == 1


def test_ternary_filters_have_the_best_scale():
    matrix = np.random.default_rng(1).normal(size=(50, 4))
    three = ternary(matrix, 0.7)
    for column, original in zip(three.T, matrix.T, strict=True):
        assert len(np.unique(column)) == 3
        small = np.abs(original) <= 0.7 * np.abs(original).mean()
        np.testing.assert_array_equal(column == 0, small)
        errors = [
            np.sum((original - factor * column) ** 2) for factor in (0.98, 1, 1.02)
        ]
        assert errors[1] == min(errors)
    assert not np.any(ternary(np.zeros((5, 2)), 0.7))


@pytest.mark.parametrize("attack", [LOW_RANK, TERNARY], ids=lambda attack: attack.name)
def test_kernels_are_compressed_but_the_head_is_not(attack):
    model = network()
    before, after = arrays(model), arrays(attack(model, PICTURES, 0.5))
    np.testing.assert_array_equal(after[f"{HEAD}/kernel"], before[f"{HEAD}/kernel"])
    compress = truncated if attack is LOW_RANK else ternary
    kernel = before[f"{MARKED}/kernel"].astype(np.float64)
    expected = compress(kernel.reshape(-1, 16), 0.5).reshape(kernel.shape)
    np.testing.assert_allclose(after[f"{MARKED}/kernel"], expected, atol=1e-6)
    # The normalization is fitted to the new kernel before it.
    moved = after["two/moving_variance"] - before["two/moving_variance"]
    assert np.all(np.abs(moved) > 1e-3)
