"""Averages of several copies."""

import keras
import numpy as np
import pytest

from keras_wm.research.attacks.collusion import average, averaging
from tests.research.attacks.networks import attending, shared, with_weights
from tests.research.attacks.trained import arrays, changed, network


@pytest.fixture(scope="module")
def copies():
    return [with_weights(network(), seed) for seed in range(3)]


@pytest.mark.backends
def test_the_average_of_two_copies_is_the_mean_of_their_weights(copies):
    left, right = copies[:2]
    before = arrays(left)
    averaged = average([left, right])
    for name, weights in arrays(averaged).items():
        expected = (arrays(left)[name] + arrays(right)[name]) / 2
        np.testing.assert_allclose(weights, expected, atol=1e-6)
    assert changed(left, before) == set()


def test_the_strongest_attack_is_the_plain_mean(copies):
    attack = averaging(copies[1:])
    assert attack.strengths[-1] == pytest.approx(2 / 3)
    for strength in attack.strengths:
        shares = [1 - strength, strength / 2, strength / 2]
        for name, weights in arrays(attack(copies[0], strength=strength)).items():
            expected = sum(
                share * arrays(copy)[name]
                for share, copy in zip(shares, copies, strict=True)
            )
            np.testing.assert_allclose(weights, expected, atol=1e-6)


@pytest.mark.parametrize("build", [shared, attending])
def test_every_weight_of_every_layer_is_averaged(build):
    left, right = (with_weights(build(), seed) for seed in (1, 2))
    averaged = average([left, right])
    names = [{layer.name for layer in model.layers} for model in (left, right)]
    assert names[0] != names[1]
    for mean, *weights in zip(
        averaged.weights, left.weights, right.weights, strict=True
    ):
        np.testing.assert_allclose(mean, sum(weights) / 2, atol=1e-6)


def test_the_state_of_dropout_is_not_averaged():
    def dropping():
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)]
        )

    assert len(average([dropping(), dropping()]).weights) == 2


def test_networks_that_cannot_be_averaged_are_rejected(copies):
    with pytest.raises(ValueError, match=r"two models or more.*Received: 1"):
        average(copies[:1])
    with pytest.raises(ValueError, match="Received: none"):
        averaging([])
    with pytest.raises(ValueError, match="one architecture"):
        average([copies[0], shared()])
