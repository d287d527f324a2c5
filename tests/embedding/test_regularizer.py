"""WatermarkRegularizer: its values, its gradients and its warnings."""

import warnings

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_wm import WatermarkKey, WatermarkRegularizer
from keras_wm.embedding.loss.kernel_projection import without_capacity_warnings
from tests.conftest import fixed_key
from tests.models import (
    expected_crossentropy,
    expected_margin_loss,
    expected_scores,
    most_bits,
    number,
    value_and_gradient,
)

pytestmark = pytest.mark.backends

# With 20 bits and 16 groups, the last round of groups is not full.
BITS, MARGIN, STRENGTH = 20, 0.9, 0.3


class Tensor(keras.layers.Layer):
    """A custom layer whose weight is regularized."""

    def __init__(self, shape, kernel_regularizer):
        super().__init__()
        self.shape, self.regularizer = shape, kernel_regularizer

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=self.shape, regularizer=self.regularizer)


LAYERS = {
    "Dense": (lambda **kw: keras.layers.Dense(16, **kw), (None, 40), (40, 16)),
    "Conv1D": (lambda **kw: keras.layers.Conv1D(12, 5, **kw), (None, 9, 8), (5, 8, 12)),
    "Conv2D": (
        lambda **kw: keras.layers.Conv2D(12, 3, **kw),
        (None, 9, 9, 5),
        (3, 3, 5, 12),
    ),
    "Conv3D": (
        lambda **kw: keras.layers.Conv3D(10, 2, **kw),
        (None, 4, 4, 4, 5),
        (2, 2, 2, 5, 10),
    ),
    "rank 2, fewer filters than groups": (
        lambda **kw: Tensor((64, 3), **kw),
        (None, 1),
        (64, 3),
    ),
    "rank 6": (
        lambda **kw: Tensor((2,) * 5 + (20,), **kw),
        (None, 1),
        (2,) * 5 + (20,),
    ),
}


LOSSES = ("margin", "crossentropy")


def explicit_key(size):
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(BITS, size)) * rng.uniform(0.1, 9, (BITS, 1))
    return WatermarkKey.from_arrays(matrix, rng.integers(0, 2, BITS))


def regularizer_and_loss(key, loss, margin):
    """Returns a regularizer, and a function that gives its loss by the equations."""
    if loss == "margin":
        regularizer = WatermarkRegularizer(key, loss, STRENGTH, margin)
        return regularizer, lambda kernel: expected_margin_loss(kernel, key, margin)
    regularizer = WatermarkRegularizer(key, loss, STRENGTH)
    return regularizer, lambda kernel: expected_crossentropy(kernel, key)


@pytest.mark.parametrize("name", LAYERS)
def test_the_penalty_of_a_layer_is_that_of_the_equations(name):
    make_layer, input_shape, shape = LAYERS[name]
    for loss in LOSSES:
        regularizer, expected = regularizer_and_loss(fixed_key(BITS), loss, margin=0.6)
        layer = make_layer(kernel_regularizer=regularizer)
        keras.utils.set_random_seed(5)
        layer.build(input_shape)
        assert layer.kernel.shape == shape
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        (value,) = layer.losses
        assert number(value) == pytest.approx(STRENGTH * expected(kernel), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_penalty_of_an_explicit_key_is_that_of_the_equations(loss, rng):
    kernel = rng.normal(size=(3, 3, 5, 8)).astype("float32")
    regularizer, expected = regularizer_and_loss(explicit_key(45), loss, MARGIN)
    value = number(regularizer(kernel))
    assert value == pytest.approx(STRENGTH * expected(kernel), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_penalty_of_a_recipients_key_is_that_of_the_equations(loss, rng):
    # The last 15 of the 375 weights are in no block.
    kernel = rng.normal(size=(5, 5, 3, 5)).astype("float32")
    key = fixed_key(BITS, filters="mean").for_recipient("customer-17")
    regularizer, expected = regularizer_and_loss(key, loss, MARGIN)
    with without_capacity_warnings():
        value, gradient = value_and_gradient(regularizer, kernel)
    assert value == pytest.approx(STRENGTH * expected(kernel), rel=1e-5)
    if loss == "crossentropy":
        assert not gradient.ravel()[-15:].any()
        assert np.all(np.any(gradient.ravel()[:360].reshape(BITS, 18) != 0, axis=1))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    bits=st.integers(1, 40),
    filters=st.sampled_from(["keyed", "mean"]),
    projection=st.sampled_from(["random", "direct", "diff"]),
    seed=st.integers(0, 99),
)
def test_any_shape_gives_the_value_of_the_equations_or_an_error_that_names_the_limit(
    shape, bits, filters, projection, seed
):
    size = int(np.prod(shape[:-1]))
    key = fixed_key(bits, projection, filters)
    limit = {
        "random": most_bits(shape, key.groups),
        "direct": size,
        "diff": size // 2,
    }[projection]
    kernel = np.random.default_rng(seed).normal(size=shape).astype("float32")
    for loss in LOSSES:
        regularizer, expected = regularizer_and_loss(key, loss, margin=1.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Many of these kernels are too small.
            if bits > limit:
                match = rf"T={bits} .*M={size} .*T <= {limit} "
                with pytest.raises(ValueError, match=match):
                    regularizer(kernel)
                continue
            value = number(regularizer(kernel))
        assert value == pytest.approx(STRENGTH * expected(kernel), rel=1e-4, abs=1e-5)


def test_a_variable_a_tensor_and_an_array_give_the_same_value(key, rng):
    kernel = rng.normal(size=(32, 64)).astype("float32")
    regularizer = WatermarkRegularizer(key)
    values = [
        number(regularizer(kind(kernel)))
        for kind in (keras.Variable, keras.ops.convert_to_tensor, np.asarray)
    ]
    assert values[0] == values[1] == values[2] > 0


def test_bit_losses_are_the_terms_of_the_sum(key, rng):
    kernel = rng.normal(size=(3, 3, 8, 32)).astype("float32")
    regularizer = WatermarkRegularizer(key, "crossentropy", strength=0.25)
    terms = keras.ops.convert_to_numpy(regularizer.bit_losses(kernel))
    assert terms.shape == (32,)
    mark = key.for_shape(kernel.shape)
    signs = 2.0 * mark.message - 1.0
    flat = kernel.astype(np.float64).reshape(72, 32)
    y = [mark.matrix[j] @ flat @ mark.filter_weights[j] for j in range(32)]
    np.testing.assert_allclose(terms, np.logaddexp(0, -signs * y), rtol=1e-4, atol=1e-5)
    assert number(regularizer(kernel)) == pytest.approx(0.25 * terms.sum(), rel=1e-5)


@pytest.mark.parametrize("filters", ["keyed", "mean"])
def test_the_crossentropys_gradient_is_that_of_finite_differences(filters, rng):
    key = fixed_key(BITS, filters=filters)
    kernel = 0.1 * rng.normal(size=(40, 24))
    regularizer = WatermarkRegularizer(key, "crossentropy", STRENGTH)
    _, gradient = value_and_gradient(regularizer, kernel.astype("float32"))
    step = 1e-5
    for _ in range(5):
        direction = rng.normal(size=kernel.shape)
        ahead = expected_crossentropy(kernel + step * direction, key)
        behind = expected_crossentropy(kernel - step * direction, key)
        slope = STRENGTH * (ahead - behind) / (2 * step)
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-2, 1e3, 1e6])
def test_the_margin_does_not_depend_on_the_scale_of_the_weights(key, rng, scale):
    kernel = rng.normal(size=(32, 64)).astype("float32")
    regularizer = WatermarkRegularizer(key)
    assert number(regularizer(kernel * np.float32(scale))) == pytest.approx(
        number(regularizer(kernel)), rel=1e-5
    )


def marked_kernel(key, size, count):
    """Returns a kernel that consists of the mark only."""
    mark = key.for_shape((size, count))
    a, x = mark.filter_weights, mark.matrix
    signs = 2.0 * mark.message - 1.0
    rows = [signs[j] * np.outer(x[j], a[j % len(a)]) for j in range(key.bits)]
    return np.sum(rows, axis=0).astype("float32")


def test_once_every_bit_has_its_margin_the_weights_are_left_alone(key):
    kernel = marked_kernel(key, 128, 64)
    assert expected_scores(kernel, key).min() > 4
    value, gradient = value_and_gradient(WatermarkRegularizer(key), kernel)
    assert value == 0
    assert not gradient.any()


def test_a_step_against_the_gradient_lowers_the_penalty(key, rng):
    kernel = rng.normal(size=(32, 64)).astype("float32")
    for loss in LOSSES:
        regularizer = WatermarkRegularizer(key, loss)
        before, gradient = value_and_gradient(regularizer, kernel)
        step = 0.1 * np.linalg.norm(kernel) * gradient / np.linalg.norm(gradient)
        assert number(regularizer((kernel - step).astype("float32"))) < before


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("host", "penalty"),
    [
        ("l2", lambda w: 0.01 * np.sum(w**2)),
        (keras.regularizers.L1(0.02), lambda w: 0.02 * np.sum(np.abs(w))),
        (lambda w: keras.ops.sum(w) * 0.5, lambda w: 0.5 * np.sum(w)),
    ],
    ids=["l2", "L1", "lambda"],
)
def test_the_hosts_own_regularizer_is_added(key, rng, host, penalty, loss):
    kernel = rng.normal(size=(32, 64)).astype("float32")
    alone = number(WatermarkRegularizer(key, loss)(kernel))
    composed = number(WatermarkRegularizer(key, loss, regularizer=host)(kernel))
    assert composed == pytest.approx(alone + penalty(kernel), rel=1e-5, abs=1e-5)


def test_the_default_strength_is_that_of_the_loss(key, rng):
    kernel = rng.normal(size=(32, 64)).astype("float32")
    margin = min(4, 0.17 * np.sqrt(32 * 64 / 32))
    assert number(WatermarkRegularizer(key)(kernel)) == pytest.approx(
        1e-4 * expected_margin_loss(kernel, key, margin), rel=1e-5
    )
    assert number(WatermarkRegularizer(key, "crossentropy")(kernel)) == pytest.approx(
        1e-2 * expected_crossentropy(kernel, key), rel=1e-5
    )


@pytest.mark.parametrize(("size", "count"), [(32, 64), (72, 48), (64, 1024)])
def test_the_default_margin_is_the_largest_unseen_one(key, rng, size, count):
    kernel = rng.normal(size=(size, count)).astype("float32")
    margin = min(4.0, 0.17 * np.sqrt(size * count / 32))
    value = number(WatermarkRegularizer(key, strength=1.0)(kernel))
    assert value == pytest.approx(expected_margin_loss(kernel, key, margin), rel=1e-5)


def test_a_kernel_that_is_too_small_is_warned_of(key, rng):
    kernel = rng.normal(size=(16, 24)).astype("float32")
    largest_unseen = 0.17 * np.sqrt(16 * 24 / 32)
    regularizer = WatermarkRegularizer(key, strength=1.0)
    with pytest.warns(
        UserWarning, match=f"32 bits.* 16 x 24 .*margin of {largest_unseen:.2g}"
    ):
        value = number(regularizer(kernel))
    assert value == pytest.approx(
        expected_margin_loss(kernel, key, largest_unseen), rel=1e-5
    )


def test_a_margin_that_will_be_visible_is_warned_of_and_used(key, rng):
    kernel = rng.normal(size=(32, 64)).astype("float32")
    regularizer = WatermarkRegularizer(key, strength=1.0, margin=4.0)
    with pytest.warns(UserWarning, match="at 4 the mark will be weak or visible"):
        value = number(regularizer(kernel))
    assert value == pytest.approx(expected_margin_loss(kernel, key, 4.0), rel=1e-5)


def test_crossentropy_warns_of_more_bits_than_weights_that_are_read(rng):
    key = fixed_key(20, filters="mean")
    kernel = rng.normal(size=(16, 24)).astype("float32")
    with pytest.warns(UserWarning, match="20 bits .* exceed the 16 weights"):
        WatermarkRegularizer(key, "crossentropy")(kernel)


def test_one_object_serves_layers_of_several_shapes(key, rng):
    regularizer = WatermarkRegularizer(key, "crossentropy", strength=1.0)
    for shape in [(32, 64), (3, 3, 8, 32), (64, 32), (32, 64)]:
        kernel = rng.normal(size=shape).astype("float32")
        assert number(regularizer(kernel)) == pytest.approx(
            expected_crossentropy(kernel, key), rel=1e-5
        )
