"""Marking in every precision, with every optimizer, from any weights."""

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, WatermarkRegularizer
from tests.conftest import fixed_key
from tests.models import (
    MARKING_EPOCHS,
    UNSEEN_MARGIN,
    compile_model,
    compiled_gradient,
    dense_model,
    expected_ber,
    expected_crossentropy,
    expected_margin_loss,
    find_layer,
    fit,
    kernel_of,
    mark,
    number,
    value_and_gradient,
)

pytestmark = pytest.mark.backends

BACKEND = keras.backend.backend()
LOSSES = ("margin", "crossentropy")
NOISE = np.random.default_rng(0).normal(size=(32, 64))
EXTREMES = {
    "zeros": np.zeros((32, 64)),
    "ones": np.ones((32, 64)),
    "all 1e4": np.full((32, 64), 1e4),
    "noise of 1e4": 1e4 * NOISE,
    "noise of 1e-8": 1e-8 * NOISE,
    "noise of 1e-30": 1e-30 * NOISE,
    "one weight": np.eye(32, 64) * (np.arange(32)[:, None] == 3),
}


def extreme(name):
    return EXTREMES[name].astype("float32")


# Values and gradients.


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_weights_give_a_finite_value_and_gradient(key, name, dtype):
    kernel = np.clip(extreme(name), -6e4, 6e4)
    for loss in LOSSES:
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


@pytest.mark.parametrize("loss", LOSSES)
def test_a_kernel_of_zeros_is_pulled_off_zero(key, loss):
    _, gradient = value_and_gradient(mark(key, loss=loss), extreme("zeros"))
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_kernel_in_half_precision_is_read_in_float32(key, rng, loss, dtype):
    half = keras.ops.cast(rng.normal(size=(32, 64)).astype("float32"), dtype)
    rounded = keras.ops.convert_to_numpy(keras.ops.cast(half, "float32"))
    expected = (
        expected_margin_loss(rounded, key, UNSEEN_MARGIN)
        if loss == "margin"
        else expected_crossentropy(rounded, key)
    )
    penalty = WatermarkRegularizer(key, loss, strength=1.0)(half)
    assert keras.backend.standardize_dtype(penalty.dtype) == "float32"
    assert number(penalty) == pytest.approx(expected, rel=1e-5)


# Training.


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
def test_a_mark_is_trained_and_reported_in_this_precision(key, policy):
    model = dense_model(mark(key, regularizer="l2"), dtype=policy)
    history = fit(model, MARKING_EPOCHS, [BitErrorRate()])
    kernel = kernel_of(model).astype("float32")
    assert np.isfinite(kernel).all()
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(history["embedding_loss"]).all()
    assert history["ber"][-1] == pytest.approx(expected_ber(kernel, key))
    # The weights themselves are in half precision in the other policies.
    if policy.startswith("mixed") or policy == "float64":
        assert history["ber"][-1] == 0


def trained_kernel(gradient, optimizer, kernel=None, steps=30):
    """Returns a kernel after some steps with the gradient of the penalty alone."""
    start = dense_model(compiled=False).layers[0].kernel if kernel is None else kernel
    variable = keras.Variable(start)
    optimizer.build([variable])
    for _ in range(steps):
        step = gradient(keras.ops.convert_to_numpy(variable))
        optimizer.apply([keras.ops.convert_to_tensor(step)], [variable])
    return keras.ops.convert_to_numpy(variable)


@pytest.fixture(scope="module")
def gradients():
    """The gradients of a strong margin and a strong cross-entropy, each traced once."""
    return {
        loss: compiled_gradient(mark(fixed_key(), loss=loss, strength=0.1))
        for loss in LOSSES
    }


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "Nesterov": lambda: keras.optimizers.SGD(0.02, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(1e-2),
    "AdamW": lambda: keras.optimizers.AdamW(1e-2, weight_decay=4e-3),
    "clipped Adam": lambda: keras.optimizers.Adam(1e-2, global_clipnorm=1.0),
}


@pytest.mark.study
@pytest.mark.parametrize(
    ("loss", "name"),
    [
        *(("margin", name) for name in OPTIMIZERS),
        ("crossentropy", "SGD"),
        ("crossentropy", "AdamW"),
    ],
)
def test_a_mark_is_complete_after_30_steps_of_this_optimizer(
    key, gradients, loss, name
):
    kernel = trained_kernel(gradients[loss], OPTIMIZERS[name]())
    assert np.isfinite(kernel).all()
    assert expected_ber(kernel, key) == 0


@pytest.mark.parametrize("filters", ["keyed", "mean"])
@pytest.mark.parametrize("projection", ["direct", "diff"])
def test_a_mark_with_this_projection_is_complete_after_30_steps(projection, filters):
    key = fixed_key(8, projection, filters)
    gradient = compiled_gradient(mark(key, strength=0.2))
    kernel = trained_kernel(gradient, keras.optimizers.SGD(0.1))
    assert expected_ber(kernel, key) == 0


def test_a_mark_is_completed_in_a_kernel_that_starts_at_zero(key, gradients):
    optimizer = keras.optimizers.Adam(1e-2)
    kernel = trained_kernel(gradients["margin"], optimizer, extreme("zeros"))
    assert expected_ber(kernel, key) == 0


def test_training_from_extreme_weights_never_gives_nan(model):
    start = model.get_weights()
    for name in ("zeros", "all 1e4", "noise of 1e4", "noise of 1e-8"):
        model.set_weights(start)
        find_layer(model).kernel.assign(extreme(name))
        fit(model, 2)
        assert np.isfinite(kernel_of(model)).all(), name


@pytest.mark.parametrize(
    "way",
    [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
    ids=["eager", "jit", "two steps at once"],
)
def test_every_way_to_run_a_step_gives_the_same_loss(model, key, way):
    if BACKEND == "torch" and "run_eagerly" not in way:
        pytest.skip("Keras runs single steps on torch, and Inductor needs a compiler")
    other = dense_model(mark(key, strength=3e-3))
    compile_model(other, **way)
    losses = fit(model, steps_per_epoch=4)["loss"]
    np.testing.assert_allclose(fit(other, steps_per_epoch=4)["loss"], losses, rtol=1e-4)
