"""A step of a mark's own: closer to the margin, with the same values of the weights."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm.embedding.loss.decoupled_step import (
    stepped,
    stepped_factors,
    with_values_of,
)
from keras_wm.embedding.loss.kernel_projection import (
    KernelProjection,
    without_capacity_warnings,
)
from keras_wm.scheme.anchor import Anchor
from tests.conftest import fixed_key
from tests.models import expected_scores

pytestmark = pytest.mark.backends

BITS, MARGIN = 24, 1.2
SHAPES = [(48, 40), (3, 3, 12, 32), (5, 8, 40)]


def projection_of(key, shape, margin=MARGIN):
    with without_capacity_warnings():
        return KernelProjection.for_shape(key, shape, "margin", margin)


def random_kernel(rng, shape):
    """Returns weights from the uniform distribution of Keras's default initializer."""
    return rng.uniform(-0.1, 0.1, shape).astype("float32")


def shortfalls(kernel, key, margin=MARGIN):
    return np.maximum(0.0, margin - expected_scores(kernel, key))


def keys():
    """Returns keys of every kind that reads a kernel in a way of its own."""
    owner = fixed_key(BITS)
    directions = np.linalg.qr(np.random.default_rng(5).normal(size=(48, 6)))[0]
    anchor = Anchor(np.linspace(3.0, 1.0, 6), directions, 1, 1)
    return {
        "keyed": owner,
        "mean": fixed_key(8, filters="mean"),
        "recipient": owner.for_recipient("customer"),
        "anchored": fixed_key(BITS, owner="anchored").with_anchor(anchor),
    }


@pytest.mark.parametrize("kind", keys())
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_each_step_covers_its_share_of_the_way_to_the_margin(kind, share, rng):
    key, shape = keys()[kind], (48, 400)
    kernel, projection = random_kernel(rng, shape), projection_of(key, shape)
    before = shortfalls(kernel, key).mean()
    for steps in range(1, 4):
        kernel = stepped(keras.ops.convert_to_tensor(kernel), projection, share)
        # The bits are not quite orthogonal in so short filters, so they hold each other
        # back.
        now = shortfalls(kernel, key).mean()
        assert before * (1 - 1.1 * share) ** steps < now
        assert now < before * (1 - 0.5 * share) ** steps


@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.0, 1.0))
def test_the_values_are_those_of_the_kernel_in_another_order(shape, seed, share):
    kernel = random_kernel(np.random.default_rng(seed), shape)
    projection = projection_of(fixed_key(BITS), shape)
    moved = stepped(keras.ops.convert_to_tensor(kernel), projection, share)
    assert moved.shape == shape and moved.dtype == kernel.dtype
    np.testing.assert_array_equal(np.sort(moved, axis=None), np.sort(kernel, axis=None))


def test_the_mark_is_embedded_by_nearly_the_smallest_change(rng):
    key, shape = fixed_key(BITS), SHAPES[0]
    kernel, projection = random_kernel(rng, shape), projection_of(key, shape)
    moved = kernel
    for _ in range(8):
        moved = stepped(keras.ops.convert_to_tensor(moved), projection, 0.7)
    reached = expected_scores(moved, key)
    # The smallest change that moves the scores as far, if their norms stayed the same.
    mark = key.for_shape(shape)
    rows = [
        (2.0 * bit - 1.0)
        * np.outer(x, a).ravel()
        / np.linalg.norm(kernel.astype(float) @ a)
        for bit, x, a in zip(
            mark.message,
            mark.matrix,
            [mark.filter_weights[j % key.groups] for j in range(BITS)],
            strict=True,
        )
    ]
    smallest = np.linalg.norm(
        np.linalg.pinv(np.array(rows)) @ (reached - expected_scores(kernel, key))
    )
    assert reached.min() > 0.9 * MARGIN
    # Holding the moments takes a change of its own.
    assert np.linalg.norm(moved - kernel) < 1.5 * smallest


def test_keyed_filters_leave_the_mean_filter_as_it_is(rng):
    kernel, shape = random_kernel(rng, SHAPES[0]), SHAPES[0]
    moved = stepped(
        keras.ops.convert_to_tensor(kernel), projection_of(fixed_key(BITS), shape), 0.9
    )
    change = moved - kernel
    # The order of the values is restored by a small change of each weight.
    mean_filter = np.linalg.norm(change.mean(axis=1)) * shape[1] ** 0.5
    assert mean_filter < 0.1 * np.linalg.norm(change)


def test_a_complete_mark_is_left_as_it_is(rng):
    key, shape = fixed_key(BITS), SHAPES[0]
    kernel = random_kernel(rng, shape)
    complete = kernel
    for _ in range(30):
        tensor = keras.ops.convert_to_tensor(complete)
        complete = stepped(tensor, projection_of(key, shape), 0.9)
    reached = expected_scores(complete, key).min()
    assert reached > 0.5 * MARGIN
    lower = projection_of(key, shape, margin=0.9 * reached)
    again = stepped(keras.ops.convert_to_tensor(complete), lower, 0.9)
    np.testing.assert_array_equal(again, complete)


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.3])
def test_a_kernel_of_equal_weights_gets_the_mark_all_the_same(value):
    key, shape = fixed_key(BITS), SHAPES[0]
    kernel = np.full(shape, value, "float32")
    for _ in range(60):
        kernel = stepped(
            keras.ops.convert_to_tensor(kernel), projection_of(key, shape), 0.5
        )
        assert np.isfinite(kernel).all()
    assert expected_scores(kernel, key).min() > 0


def test_ranks_decide_which_weight_gets_which_value():
    moved = np.array([[0.3, -1.0], [0.1, 7.0]])
    weights = np.array([[4.0, 1.0], [2.0, 3.0]])
    expected = [[3.0, 1.0], [2.0, 4.0]]
    np.testing.assert_array_equal(with_values_of(moved, weights), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_lora_factors_embed_the_mark_in_the_merged_kernel(shape, rng):
    key, rank, scale = fixed_key(BITS), 6, 0.5
    frozen = random_kernel(rng, shape)
    a = random_kernel(rng, (*shape[:-1], rank))
    b = np.zeros((rank, shape[-1]), "float32")
    projection = projection_of(key, shape)
    merged = frozen
    for _ in range(30):
        a, b = stepped_factors(
            *map(keras.ops.convert_to_tensor, (frozen, a, b)), scale, projection, 0.3
        )
        a, b = map(keras.ops.convert_to_numpy, (a, b))
        flat = a.reshape(-1, rank) @ b
        merged = frozen + scale * flat.reshape(shape)
    assert expected_scores(merged, key).min() > 0
    assert shortfalls(merged, key).mean() < 0.3 * shortfalls(frozen, key).mean()
