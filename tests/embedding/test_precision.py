"""Embedding in every precision, with every optimizer, from any weights."""

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, WatermarkRegularizer
from tests.conftest import fixed_key
from tests.models import (
    compile_model,
    dense_model,
    expected_ber,
    expected_crossentropy,
    expected_margin_loss,
    fit,
    kernel_of,
    mark,
    number,
    value_and_gradient,
)

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
ROOM = 0.17 * np.sqrt(32 * 64 / 32)


def extreme(name):
    noise = np.random.default_rng(0).normal(size=(32, 64))
    return {
        "zeros": np.zeros((32, 64)),
        "ones": np.ones((32, 64)),
        "all 1e4": np.full((32, 64), 1e4),
        "noise of 1e4": 1e4 * noise,
        "noise of 1e-8": 1e-8 * noise,
        "noise of 1e-30": 1e-30 * noise,
        "one weight": np.eye(32, 64) * (np.arange(32)[:, None] == 3),
    }[name].astype("float32")


EXTREMES = [
    "zeros",
    "ones",
    "all 1e4",
    "noise of 1e4",
    "noise of 1e-8",
    "noise of 1e-30",
    "one weight",
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("loss", ["margin", "crossentropy"])
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_weights_give_a_finite_value_and_a_finite_gradient(
    key, name, loss, dtype
):
    kernel = np.clip(extreme(name), -6e4, 6e4)
    value, gradient = value_and_gradient(mark(key, loss=loss), kernel, dtype)
    assert np.isfinite(value)
    assert value > 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("scale", [1e10, 1e18, 1e25])
def test_the_margin_is_finite_for_weights_near_the_end_of_float32(key, rng, scale):
    kernel = (scale * rng.normal(size=(32, 64))).astype("float32")
    value, gradient = value_and_gradient(mark(key), kernel)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("loss", ["margin", "crossentropy"])
def test_a_kernel_of_zeros_is_pulled_off_zero(key, loss):
    _, gradient = value_and_gradient(mark(key, loss=loss), extreme("zeros"))
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("loss", ["margin", "crossentropy"])
def test_a_kernel_in_half_precision_is_read_in_float32(key, rng, loss, dtype):
    half = keras.ops.cast(rng.normal(size=(32, 64)).astype("float32"), dtype)
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(half, "float32"))
    expected = (
        expected_margin_loss(rounded, key, ROOM)
        if loss == "margin"
        else expected_crossentropy(rounded, key)
    )
    penalty = WatermarkRegularizer(key, loss, strength=1.0)(half)
    assert keras.backend.standardize_dtype(penalty.dtype) == "float32"
    assert number(penalty) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "policy", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"]
)
def test_training_in_this_precision_keeps_the_weights_finite(key, policy):
    model = dense_model(mark(key, regularizer="l2"), dtype=policy)
    history = fit(model, 2)
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(kernel_of(model).astype("float32")).all()


@pytest.mark.parametrize(
    "policy",
    [
        "float16",
        "bfloat16",
        "mixed_float16",
        "mixed_bfloat16",
        pytest.param(
            "float64",
            marks=pytest.mark.skipif(
                BACKEND == "jax", reason="JAX has no float64 unless asked for it"
            ),
        ),
    ],
)
def test_the_bit_error_rate_is_reported_in_this_precision(key, policy):
    model = dense_model(mark(key), dtype=policy)
    history = fit(model, 1, [BitErrorRate()])
    kernel = kernel_of(model).astype("float32")
    assert history["ber"] == [pytest.approx(expected_ber(kernel, key))]
    assert np.isfinite(history["embedding_loss"]).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mark_is_completed_in_mixed_precision(key, policy):
    model = dense_model(mark(key), dtype=policy)
    fit(model, 13)
    assert expected_ber(kernel_of(model), key) == 0


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "Nesterov": lambda: keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(1e-3),
    "AdamW": lambda: keras.optimizers.AdamW(1e-3, weight_decay=4e-3),
    "clipped Adam": lambda: keras.optimizers.Adam(1e-3, global_clipnorm=1.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_margin_is_complete_after_208_steps(key, name):
    model = dense_model(mark(key), OPTIMIZERS[name]())
    assert expected_ber(kernel_of(model), key) > 0.1
    history = fit(model, 13)
    assert np.isfinite(history["loss"]).all()
    assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_crossentropy_is_complete_after_208_steps(key, name):
    model = dense_model(mark(key, loss="crossentropy"), OPTIMIZERS[name]())
    fit(model, 13)
    assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.parametrize("filters", ["keyed", "mean"])
@pytest.mark.parametrize("projection", ["direct", "diff"])
def test_a_mark_with_this_projection_is_complete_after_208_steps(projection, filters):
    key = fixed_key(8, projection, filters)
    model = dense_model(mark(key, strength=0.1))
    fit(model, 13)
    assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.parametrize("name", ["zeros", "all 1e4", "noise of 1e4", "noise of 1e-8"])
def test_training_from_extreme_weights_never_gives_nan(key, name):
    model = dense_model(mark(key))
    model.get_layer("wide").kernel.assign(extreme(name))
    fit(model, 2)
    assert np.isfinite(kernel_of(model)).all()


def test_a_mark_is_completed_in_a_kernel_that_starts_at_zero(key):
    model = dense_model(mark(key), kernel_initializer="zeros")
    fit(model, 13)
    assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.parametrize(
    "way",
    [
        {"run_eagerly": True},
        {"jit_compile": True},
        {"jit_compile": False},
        {"steps_per_execution": 2},
    ],
    ids=["eager", "jit", "no jit", "two steps at once"],
)
def test_every_way_to_run_a_step_gives_the_same_losses(key, way):
    if BACKEND == "torch" and ("steps_per_execution" in way or "jit_compile" in way):
        pytest.skip("Keras runs single steps on torch, and Inductor needs a compiler")
    plain, other = dense_model(mark(key)), dense_model(mark(key))
    compile_model(other, **way)
    losses = fit(plain, 2)["loss"]
    np.testing.assert_allclose(fit(other, 2)["loss"], losses, rtol=1e-4)
