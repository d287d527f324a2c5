"""Combinations of several copies."""

import keras
import numpy as np
import pytest

from keras_wm.research.attacks.collusion import (
    average,
    averaging,
    choosing,
    chosen,
    difference_removal,
    without_differences,
)
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


def low_rank_copies(rng, count, rank=3, shape=(40, 20)):
    """Returns a kernel, and copies of it with additions of low rank."""
    kernel = rng.normal(size=shape)
    added = [
        rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
        for _ in range(count)
    ]
    return kernel, np.stack([kernel + 0.1 * part for part in added]), added


@pytest.mark.parametrize("count", [2, 3])
def test_additions_of_low_rank_are_removed_with_the_span_of_the_differences(rng, count):
    kernel, stack, added = low_rank_copies(rng, count)
    for side in ("inputs", "filters", "both"):
        left = without_differences(stack, side, 1.0)
        # The span of the additions has 3 dimensions for each copy.
        for part in added:
            u, _, vt = np.linalg.svd(part)
            u, v = u[:, :3], vt[:3].T
            rest = {
                "inputs": u.T @ left,
                "filters": left @ v,
                "both": u.T @ left @ v,
            }[side]
            np.testing.assert_allclose(rest, 0, atol=1e-9)
        removed = np.linalg.norm(left - stack.mean(axis=0)) / np.linalg.norm(kernel)
        assert removed < {"inputs": 0.6, "filters": 0.8, "both": 0.5}[side]


def test_a_part_of_the_differences_takes_fewer_directions(rng):
    _, stack, _ = low_rank_copies(rng, 2)
    ranks = [
        np.linalg.matrix_rank(
            without_differences(stack, "inputs", share) - stack.mean(axis=0)
        )
        for share in (0.01, 0.5, 1.0)
    ]
    assert ranks[0] == 1 < ranks[1] < ranks[2] == 6


def test_weights_are_chosen_from_the_copies(rng):
    stack = rng.normal(size=(5, 30, 4))
    np.testing.assert_array_equal(chosen(stack, "median", rng), np.sort(stack, 0)[2])
    np.testing.assert_array_equal(chosen(stack, "smallest", rng), stack.min(axis=0))
    drawn, outliers = (chosen(stack, choice, rng) for choice in ("random", "outlier"))
    from_copy = (drawn == stack).mean(axis=(1, 2))
    assert from_copy.sum() == pytest.approx(1)
    # 120 weights: a share of a fifth lies in this range but for 1e-6.
    assert (from_copy > 0.05).all() and (from_copy < 0.4).all()
    distances = np.abs(stack - stack.mean(axis=0))
    np.testing.assert_array_equal(
        np.abs(outliers - stack.mean(axis=0)), distances.max(axis=0)
    )


def test_colluders_attack_whole_networks(copies):
    weights = [arrays(copy) for copy in copies]
    kernels = [weight["three/kernel"].reshape(-1, 16) for weight in weights]
    attacked = arrays(difference_removal(copies[1:], "inputs")(copies[0]))
    u, _, _ = np.linalg.svd(np.hstack([kernel - kernels[0] for kernel in kernels[1:]]))
    # Random kernels differ in all 32 directions that two differences can span.
    left = u[:, :1].T @ attacked["three/kernel"].reshape(-1, 16)
    np.testing.assert_allclose(left, 0, atol=1e-5)
    means = np.mean([weight["two/gamma"] for weight in weights], axis=0)
    np.testing.assert_allclose(attacked["two/gamma"], means, atol=1e-6)
    attacked = arrays(choosing(copies[1:], "median")(copies[0]))
    for name, values in attacked.items():
        median = np.median([weight[name] for weight in weights], axis=0)
        np.testing.assert_allclose(values, median, atol=1e-6)


def test_networks_that_cannot_be_combined_are_rejected(copies):
    with pytest.raises(ValueError, match=r"two models or more.*Received: 1"):
        average(copies[:1])
    for attack in (averaging, lambda none: choosing(none, "median")):
        with pytest.raises(ValueError, match="Received: none"):
            attack([])
    with pytest.raises(ValueError, match="'above'"):
        difference_removal(copies, "above")
    with pytest.raises(ValueError, match="one architecture"):
        average([copies[0], shared()])
