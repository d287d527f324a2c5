"""An adversary who knows the method and the layer."""

import numpy as np
import pytest

from keras_wm.research.attacks import adaptive
from keras_wm.research.attacks.adaptive import projection, reset, without_directions
from tests.research.attacks.networks import with_weights
from tests.research.attacks.trained import (
    HEAD,
    MARKED,
    PICTURES,
    arrays,
    changed,
    correlation,
    network,
)

KERNEL = f"{MARKED}/kernel"


def singular_values(kernel):
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)


def test_the_first_direction_is_that_of_the_mean_filter(rng):
    kernel = rng.normal(size=(3, 3, 8, 16)) + 0.5
    left = without_directions(kernel, 1)
    mean = kernel.mean(axis=-1).ravel()
    mean /= np.linalg.norm(mean)
    np.testing.assert_allclose(left.mean(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(mean @ left.reshape(72, 16), 0, atol=1e-12)
    # Across it, every filter is what it was.
    across = np.eye(72) - np.outer(mean, mean)
    np.testing.assert_allclose(
        left.reshape(72, 16), across @ kernel.reshape(72, 16), atol=1e-12
    )


def test_the_next_are_the_largest_that_are_left(rng):
    kernel = rng.normal(size=(3, 3, 8, 16))
    first = singular_values(without_directions(kernel, 1))
    after = singular_values(without_directions(kernel, 4))
    np.testing.assert_allclose(after[:13], first[3:], atol=1e-9)
    np.testing.assert_allclose(after[13:], 0, atol=1e-9)


def test_half_of_the_directions_are_left(rng):
    kernel = rng.normal(size=(5, 8))
    assert np.linalg.matrix_rank(without_directions(kernel, 100)) == 3
    np.testing.assert_array_equal(without_directions(kernel, 0), kernel)
    assert not without_directions(np.zeros((4, 4)), 1).any()


def test_the_marked_layer_alone_loses_directions_or_every_one_does():
    model = with_weights(network())
    before = arrays(model)
    attacked = projection(MARKED)(model, strength=2)
    assert changed(attacked, before) == {KERNEL}
    np.testing.assert_allclose(
        arrays(attacked)[KERNEL], without_directions(before[KERNEL], 2), atol=1e-6
    )
    every = {"one/kernel", KERNEL, f"{HEAD}/kernel"}
    assert changed(projection()(model, strength=2), before) == every


@pytest.mark.backends
def test_the_layer_that_is_drawn_anew_is_trained_alone(short):
    model = network()
    before = arrays(model)
    attacked = reset(MARKED)(model, PICTURES, 0.05)
    assert changed(attacked, before) == {KERNEL}
    # 1,152 weights: 5 standard deviations.
    assert abs(correlation(arrays(attacked)[KERNEL], before[KERNEL])) < 0.15


def test_it_is_trained_and_not_only_drawn(short, monkeypatch):
    model = network()
    trained = arrays(reset(MARKED)(model, PICTURES, 0.05))[KERNEL]
    monkeypatch.setattr(adaptive, "train", lambda *_, **__: None)
    drawn = arrays(reset(MARKED)(model, PICTURES, 0.05))[KERNEL]
    assert correlation(drawn, trained) > 0.5
    assert np.abs(drawn - trained).max() > 0.001


def test_several_layers_are_drawn_anew(short):
    model = network()
    attack = reset([HEAD, MARKED])
    head = {f"{HEAD}/kernel", f"{HEAD}/bias"}
    assert changed(attack(model, PICTURES, 0.05), arrays(model)) == {KERNEL, *head}
    assert "'three'" in attack.title
    assert repr(HEAD) in attack.title


def test_without_a_name_every_layer_with_a_kernel_is_drawn_anew(short):
    model = with_weights(network())
    attacked = reset()(model, PICTURES, 0.01)
    for name in ("one/kernel", KERNEL):
        weights, was = arrays(attacked)[name], arrays(model)[name]
        assert abs(correlation(weights, was)) < 5 / was.size**0.5
    # Normalizations are not.
    name = "two/gamma"
    np.testing.assert_allclose(arrays(attacked)[name], arrays(model)[name], atol=0.1)


def test_a_layer_that_is_missing_is_told():
    for attack in (projection("seven"), reset("seven")):
        with pytest.raises(ValueError, match=r"no layer 'seven'.*'three'"):
            attack(network(), PICTURES)
