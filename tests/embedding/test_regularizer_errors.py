"""WatermarkRegularizer: the arguments and kernels that it refuses, and its repr."""

import keras
import numpy as np
import pytest

from keras_wm import WatermarkKey, WatermarkRegularizer
from tests.conftest import fixed_key

pytestmark = pytest.mark.backends


@pytest.mark.parametrize(
    ("projection", "bits", "limit"),
    [("direct", 33, 32), ("diff", 17, 16), ("random", 4032, 4031)],
)
def test_too_many_bits_are_refused_with_t_m_and_the_limit(projection, bits, limit):
    regularizer = WatermarkRegularizer(fixed_key(bits, projection))
    match = rf"Too many bits.*T={bits} .*M=32 .*T <= {limit} .*{projection}"
    with pytest.raises(ValueError, match=match):
        regularizer(np.ones((32, 64), "float32"))


def test_a_layer_with_too_many_bits_is_refused_when_the_model_is_trained():
    layer = keras.layers.Dense(
        8, kernel_regularizer=WatermarkRegularizer(fixed_key(99, "direct"))
    )
    model = keras.Sequential([keras.Input((16,)), layer])
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=r"T=99 .*M=16 .*T <= 16"):
        model.fit(np.ones((4, 16)), np.ones((4, 8)), verbose=0)


def test_an_explicit_key_of_another_size_is_refused_with_both_sizes():
    key = WatermarkKey.from_arrays(np.ones((20, 45)), np.zeros(20, int))
    regularizer = WatermarkRegularizer(key)
    with pytest.raises(ValueError, match=r"M=45 .*M=32.*T=20"):
        regularizer(np.ones((32, 64), "float32"))


@pytest.mark.parametrize("shape", [(), (64,), (0, 4), (4, 0)])
def test_a_kernel_of_rank_below_2_or_without_weights_is_refused(key, shape):
    with pytest.raises(ValueError, match=r"rank 2 or more.*Received: shape="):
        WatermarkRegularizer(key)(np.ones(shape, "float32"))


@pytest.mark.parametrize("key", [None, "key", b"0" * 32, object])
def test_a_key_of_another_type_is_refused(key):
    with pytest.raises(TypeError, match="Expected a WatermarkKey"):
        WatermarkRegularizer(key)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"loss": "mse"}, "loss='mse'"),
        ({"loss": None}, "loss=None"),
        ({"strength": 0}, "strength=0"),
        ({"strength": -1.0}, "strength=-1.0"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"strength": float("inf")}, "strength=inf"),
        ({"strength": "1"}, "strength='1'"),
        ({"margin": 0}, "margin=0"),
        ({"margin": -2}, "margin=-2"),
        ({"margin": 1.0, "loss": "crossentropy"}, "only loss='margin' has a margin"),
        ({"regularizer": "no such"}, "no such"),
    ],
)
def test_arguments_out_of_range_are_refused(key, arguments, match):
    with pytest.raises(ValueError, match=match):
        WatermarkRegularizer(key, **arguments)


def test_a_second_mark_is_not_accepted_as_the_hosts_regularizer(key):
    with pytest.raises(ValueError, match="one mark"):
        WatermarkRegularizer(key, regularizer=WatermarkRegularizer(key))


def test_the_repr_shows_no_secret(key):
    text = repr(WatermarkRegularizer(key, strength=0.5))
    assert key.commitment[:8] in text
    assert "0.5" in text
    assert bytes(range(32)).hex()[:16] not in text
    assert key.owner not in text
