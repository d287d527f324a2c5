"""WatermarkRegularizer, against its equations written out in NumPy."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_wm import WatermarkKey, WatermarkRegularizer
from tests.conftest import fixed_key

pytestmark = [
    pytest.mark.backends,
    # Small kernels with little room are the rule here; what warns has its own tests.
    pytest.mark.filterwarnings("ignore:.* leave room for a margin:UserWarning"),
]


def read(kernel, key):
    """y_j and |u_j| of a kernel, bit by bit."""
    count = kernel.shape[-1]
    flat = np.asarray(kernel, np.float64).reshape(-1, count)
    weights, matrix = key.filter_weights(count), key.matrix(len(flat))
    u = [flat @ weights[j % key.groups] for j in range(key.bits)]
    y = [row @ one for row, one in zip(matrix, u, strict=True)]
    return np.array(y), np.linalg.norm(u, axis=1)


def spread(key, m):
    if key.projection == "explicit":
        return np.linalg.norm(key.matrix(m), axis=1) / np.sqrt(m)
    return {"random": 1, "direct": m**-0.5, "diff": (2 / m) ** 0.5}[key.projection]


def margin_loss(kernel, key, margin, strength=1e-4):
    y, norm = read(kernel, key)
    m = kernel.size // kernel.shape[-1]
    z = (2.0 * key.message - 1) * y / (norm * spread(key, m))
    return strength * np.sum(np.maximum(0, margin - z) ** 2)


def crossentropy_loss(kernel, key, strength=1e-2):
    y, _ = read(kernel, key)
    return strength * np.sum(np.logaddexp(0, -(2.0 * key.message - 1) * y))


def value_of(regularizer, kernel):
    return float(ops.convert_to_numpy(regularizer(ops.convert_to_tensor(kernel))))


def gradient_of(regularizer, kernel):
    """The gradient through a training step, which every backend has."""
    layer = keras.layers.Dense(
        kernel.shape[-1], use_bias=False, kernel_regularizer=regularizer
    )
    model = keras.Sequential([keras.Input((kernel.shape[0],)), layer])
    layer.kernel.assign(kernel)
    before = ops.convert_to_numpy(layer.kernel).astype(np.float64)
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, p: ops.mean(p) * 0.0)
    x = np.zeros((1, kernel.shape[0]), "float32")
    model.train_on_batch(x, np.zeros((1, kernel.shape[-1]), "float32"))
    return before - ops.convert_to_numpy(layer.kernel)


SHAPES = [(24, 6), (3, 8, 5), (3, 3, 4, 6), (2, 2, 2, 4, 7)]
CHOICES = [
    (projection, filters)
    for projection in ("random", "direct", "diff")
    for filters in ("keyed", "mean")
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("projection", "filters"), CHOICES)
def test_the_margin_loss_is_its_equation(rng, shape, projection, filters):
    key = fixed_key(11, projection, filters)
    kernel = rng.normal(size=shape).astype("float32")
    expected = margin_loss(kernel, key, margin=2.5)
    regularizer = WatermarkRegularizer(key, margin=2.5)
    assert value_of(regularizer, kernel) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("projection", "filters"), CHOICES)
def test_the_crossentropy_loss_is_its_equation(rng, shape, projection, filters):
    key = fixed_key(11, projection, filters)
    kernel = rng.normal(size=shape).astype("float32")
    expected = crossentropy_loss(kernel, key)
    regularizer = WatermarkRegularizer(key, loss="crossentropy")
    assert value_of(regularizer, kernel) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [margin_loss, crossentropy_loss])
def test_an_explicit_key_embeds_too(rng, loss):
    key = WatermarkKey.from_arrays(rng.normal(size=(5, 20)) * 3, rng.integers(0, 2, 5))
    kernel = rng.normal(size=(20, 4)).astype("float32")
    if loss is margin_loss:
        regularizer = WatermarkRegularizer(key, margin=1.5)
        expected = margin_loss(kernel, key, 1.5)
    else:
        regularizer = WatermarkRegularizer(key, loss="crossentropy")
        expected = crossentropy_loss(kernel, key)
    assert value_of(regularizer, kernel) == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    bits=st.integers(1, 30),
    m=st.integers(20, 50),
    count=st.integers(2, 20),
    seed=st.integers(0, 99),
)
def test_any_shape_is_read_bit_by_bit(bits, m, count, seed):
    key = fixed_key(bits)
    kernel = np.random.default_rng(seed).normal(size=(m, count)).astype("float32")
    expected = margin_loss(kernel, key, margin=3.0)
    regularizer = WatermarkRegularizer(key, margin=3.0)
    assert value_of(regularizer, kernel) == pytest.approx(expected, rel=1e-4)


def test_the_margin_gradient_holds_the_norm_constant(rng):
    key, strength = fixed_key(6, filters="mean"), 0.1
    kernel = rng.normal(size=(20, 4)).astype("float32")
    y, norm = read(kernel, key)
    signs = 2.0 * key.message - 1
    slack = np.maximum(0, 2.0 - signs * y / norm)
    coefficients = -2 * strength * slack * signs / norm
    column = key.matrix(20).T @ coefficients
    expected = np.outer(column, key.filter_weights(4)[0])
    regularizer = WatermarkRegularizer(key, strength=strength, margin=2.0)
    np.testing.assert_allclose(
        gradient_of(regularizer, kernel), expected, rtol=1e-3, atol=1e-6
    )


def test_the_crossentropy_gradient_is_that_of_finite_differences(rng):
    key = fixed_key(6)
    kernel = (0.1 * rng.normal(size=(20, 4))).astype("float32")
    step = 1e-4
    expected = np.zeros_like(kernel, np.float64)
    for index in np.ndindex(*kernel.shape):
        up, down = kernel.astype(np.float64), kernel.astype(np.float64)
        up[index] += step
        down[index] -= step
        rise = crossentropy_loss(up, key) - crossentropy_loss(down, key)
        expected[index] = rise / (2 * step)
    regularizer = WatermarkRegularizer(key, loss="crossentropy")
    np.testing.assert_allclose(
        gradient_of(regularizer, kernel), expected, rtol=1e-3, atol=1e-6
    )


def test_once_every_bit_is_clear_the_weights_are_left_alone():
    key = fixed_key(8, filters="mean")
    mean_filter = np.linalg.pinv(key.matrix(60)) @ (2.0 * key.message - 1)
    kernel = np.repeat(mean_filter[:, None], 3, axis=1).astype("float32")
    regularizer = WatermarkRegularizer(key, margin=1.0, strength=1.0)
    assert value_of(regularizer, kernel) == 0
    assert np.abs(gradient_of(regularizer, kernel)).max() == 0


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_the_margin_loss_does_not_depend_on_the_scale(rng, scale):
    regularizer = WatermarkRegularizer(fixed_key(8), margin=2.0)
    kernel = rng.normal(size=(30, 8)).astype("float32")
    expected = value_of(regularizer, kernel)
    assert value_of(regularizer, kernel * scale) == pytest.approx(expected, rel=1e-5)


def test_the_hosts_own_regularizer_is_added(rng):
    key, kernel = fixed_key(8), rng.normal(size=(30, 8)).astype("float32")
    alone = value_of(WatermarkRegularizer(key, margin=2.0), kernel)
    host = keras.regularizers.L2(0.03)
    both = value_of(WatermarkRegularizer(key, margin=2.0, regularizer=host), kernel)
    assert both == pytest.approx(alone + 0.03 * np.sum(kernel**2), rel=1e-5)


def test_the_default_margin_is_what_the_kernel_has_room_for(rng):
    key = fixed_key(32)
    kernel = rng.normal(size=(40, 16)).astype("float32")
    margin = 0.17 * np.sqrt(40 * 16 / 32)
    with pytest.warns(UserWarning, match="room for a margin of 0.76"):
        value = value_of(WatermarkRegularizer(key), kernel)
    assert value == pytest.approx(margin_loss(kernel, key, margin), rel=1e-5)


def test_the_default_margin_is_at_most_four(rng):
    key = fixed_key(4)
    kernel = rng.normal(size=(100, 60)).astype("float32")
    expected = margin_loss(kernel, key, 4.0)
    value = value_of(WatermarkRegularizer(key), kernel)
    assert value == pytest.approx(expected, rel=1e-5)


def test_much_more_margin_than_there_is_room_for_warns(rng):
    kernel = rng.normal(size=(40, 16)).astype("float32")
    with pytest.warns(UserWarning, match=r"32 bits .* 40 x 16 .* visible"):
        value_of(WatermarkRegularizer(fixed_key(32), margin=4.0), kernel)


def test_more_bits_than_weights_warn_with_the_papers_loss(rng):
    kernel = rng.normal(size=(20, 16)).astype("float32")
    key = fixed_key(30, filters="mean")
    with pytest.warns(UserWarning, match="some will be lost"):
        value_of(WatermarkRegularizer(key, loss="crossentropy"), kernel)


@pytest.mark.parametrize(
    ("projection", "bits", "limit"),
    [("random", 81, "T <= 79"), ("direct", 41, "T <= 40"), ("diff", 21, "T <= 20")],
)
def test_too_many_bits_name_t_m_and_the_limit(projection, bits, limit):
    key = fixed_key(bits, projection, "mean")
    regularizer = WatermarkRegularizer(key, loss="crossentropy")
    with pytest.raises(ValueError, match=rf"T={bits} .*M=40 .*{limit}"):
        regularizer(ops.ones((40, 3)))


def test_a_bias_is_refused():
    with pytest.raises(ValueError, match=r"rank 2 or more.*\(7,\)"):
        WatermarkRegularizer(fixed_key())(ops.ones((7,)))


def test_an_explicit_key_of_the_wrong_size_is_refused(rng):
    key = WatermarkKey.from_arrays(rng.normal(size=(4, 9)), [0, 1, 1, 0])
    with pytest.raises(ValueError, match=r"M=9 .*M=12.*T=4"):
        WatermarkRegularizer(key)(ops.ones((12, 3)))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"loss": "hinge"}, "'margin' or 'crossentropy'.*'hinge'"),
        ({"strength": 0}, "strength=0"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"margin": -1}, "margin=-1"),
        ({"margin": 2, "loss": "crossentropy"}, "margin belongs to loss='margin'"),
        ({"strength": "big"}, "strength='big'"),
    ],
)
def test_a_bad_argument_is_named(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        WatermarkRegularizer(fixed_key(), **arguments)


def test_a_path_is_no_key():
    with pytest.raises(TypeError, match="str"):
        WatermarkRegularizer("owner.key")


def test_a_mark_is_no_hosts_regularizer():
    with pytest.raises(ValueError, match="one mark"):
        WatermarkRegularizer(
            fixed_key(), regularizer=WatermarkRegularizer(fixed_key(8))
        )


@pytest.mark.parametrize("loss", ["margin", "crossentropy"])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8, 1e4, 1e8])
def test_value_and_gradient_are_finite_at_any_scale(rng, loss, scale):
    kernel = (scale * rng.normal(size=(60, 16))).astype("float32")
    regularizer = WatermarkRegularizer(fixed_key(8), loss=loss)
    assert np.isfinite(value_of(regularizer, kernel))
    assert np.isfinite(gradient_of(regularizer, kernel)).all()


@pytest.mark.parametrize("loss", ["margin", "crossentropy"])
def test_a_kernel_of_zeros_is_moved_by_no_more_than_a_kernels_scale(loss):
    regularizer = WatermarkRegularizer(fixed_key(8), loss=loss)
    step = 0.1 * gradient_of(regularizer, np.zeros((60, 16), "float32"))
    assert 0 < np.abs(step).max() < 0.5


def test_one_object_serves_layers_of_several_shapes(rng):
    key = fixed_key(8)
    shared = WatermarkRegularizer(key, margin=2.0)
    for shape in SHAPES:
        kernel = rng.normal(size=shape).astype("float32")
        expected = margin_loss(kernel, key, 2.0)
        assert value_of(shared, kernel) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv1D(8, 3),
        keras.layers.Conv2D(8, 3),
        keras.layers.Conv3D(8, 3),
        keras.layers.Conv2DTranspose(8, 3),
        keras.layers.Dense(8),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_layer_with_a_kernel_takes_it(layer):
    layer.kernel_regularizer = WatermarkRegularizer(fixed_key(4), margin=2.0)
    rank = {"Conv1D": 1, "Conv3D": 3, "Dense": 0}.get(type(layer).__name__, 2)
    layer.build((None, *[5] * rank, 6))
    (loss,) = layer.losses
    kernel = ops.convert_to_numpy(layer.kernel)
    assert float(loss) == pytest.approx(
        margin_loss(kernel, fixed_key(4), 2.0), rel=1e-5
    )


def test_a_weight_of_ones_own_takes_it():
    class Bilinear(keras.layers.Layer):
        def build(self, shape):
            self.form = self.add_weight(
                shape=(shape[-1], 5, shape[-1]),
                regularizer=WatermarkRegularizer(fixed_key(4), margin=2.0),
            )

    layer = Bilinear()
    layer.build((None, 6))
    kernel = ops.convert_to_numpy(layer.form)
    assert float(layer.losses[0]) == pytest.approx(
        margin_loss(kernel, fixed_key(4), 2.0), rel=1e-5
    )


def test_lora_factors_are_left_alone_and_it_is_said():
    layer = keras.layers.Dense(
        40, kernel_regularizer=WatermarkRegularizer(fixed_key(), margin=1.0)
    )
    model = keras.Sequential([keras.Input((30,)), layer])
    layer.enable_lora(2)
    with pytest.warns(UserWarning, match="LoRA trains two factors"):
        losses = [float(loss) for loss in model.losses]
    assert losses == [0, 0]


def test_training_lora_factors_does_not_fail(rng):
    layer = keras.layers.Dense(
        40, kernel_regularizer=WatermarkRegularizer(fixed_key(), margin=1.0)
    )
    model = keras.Sequential([keras.Input((30,)), layer])
    layer.enable_lora(2)
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(8, 30)), rng.normal(size=(8, 40))
    with pytest.warns(UserWarning, match="LoRA"):
        history = model.fit(x, y, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_the_repr_shows_no_secret():
    regularizer = WatermarkRegularizer(fixed_key())
    assert fixed_key()._secret.reveal() not in repr(regularizer)
    assert "margin" in repr(regularizer)
