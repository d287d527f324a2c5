"""Setting weights to zero."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_wm.research.attacks.pruning import prune

KERNEL = np.array([[[0.5, -3.0], [2.0, -0.1]], [[4.0, 1.0], [-1.5, 0.2]]], np.float32)


@pytest.mark.parametrize(
    "order, left",
    [
        ("ascending", [-3.0, 2.0, 4.0, -1.5]),
        ("descending", [0.5, -0.1, 1.0, 0.2]),
    ],
)
def test_the_smallest_or_the_largest_magnitudes_are_pruned_first(order, left):
    pruned = prune(KERNEL, 0.5, order)
    assert pruned[pruned != 0].tolist() == np.float32(left).tolist()
    assert (pruned[pruned != 0] == KERNEL[pruned != 0]).all()


@given(
    share=st.floats(0, 1),
    size=st.integers(1, 60),
    order=st.sampled_from(["ascending", "descending", "random"]),
)
def test_exactly_the_requested_share_becomes_zero(share, size, order):
    kernel = np.arange(1.0, size + 1).reshape(1, size) * (-1) ** np.arange(size)
    before = kernel.copy()
    pruned = prune(kernel, share, order)
    assert np.sum(pruned == 0) == round(share * size)
    assert (pruned[pruned != 0] == kernel[pruned != 0]).all()
    np.testing.assert_array_equal(kernel, before)


def test_a_random_order_depends_on_the_seed_and_not_on_magnitudes():
    kernel = np.arange(1.0, 10_001)
    first, again, other = (prune(kernel, 0.5, "random", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # The mean of a random half has a standard deviation of 0.58 %. One seed in two
    # million deviates by more than five of them, and the seed is fixed.
    assert first[first != 0].mean() == pytest.approx(kernel.mean(), rel=0.029)


@pytest.mark.parametrize("wrong", [{"share": 1.1}, {"share": -0.1}, {"order": "up"}])
def test_an_invalid_share_or_order_is_rejected(wrong):
    with pytest.raises(ValueError, match=r"Expected .* Received"):
        prune(KERNEL, **{"share": 0.5, **wrong})
