"""Attacks by an adversary who knows the method and the layer."""

import numpy as np
import pytest

from keras_wm.research.attacks import adaptive
from keras_wm.research.attacks.adaptive import projection, reset, without_directions
from keras_wm.research.attacks.fine_tuning import with_fine_tuning
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
    rest = without_directions(kernel, 1)
    mean = kernel.mean(axis=-1).ravel()
    mean /= np.linalg.norm(mean)
    np.testing.assert_allclose(rest.mean(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(mean @ rest.reshape(72, 16), 0, atol=1e-12)
    # Orthogonal to it, every filter is unchanged.
    across = np.eye(72) - np.outer(mean, mean)
    np.testing.assert_allclose(
        rest.reshape(72, 16), across @ kernel.reshape(72, 16), atol=1e-12
    )


def test_the_next_directions_are_the_largest_of_the_rest(rng):
    kernel = rng.normal(size=(3, 3, 8, 16))
    first = singular_values(without_directions(kernel, 1))
    after = singular_values(without_directions(kernel, 4))
    np.testing.assert_allclose(after[:13], first[3:], atol=1e-9)
    np.testing.assert_allclose(after[13:], 0, atol=1e-9)


def test_at_most_half_of_the_directions_are_removed(rng):
    kernel = rng.normal(size=(5, 8))
    assert np.linalg.matrix_rank(without_directions(kernel, 100)) == 3
    np.testing.assert_array_equal(without_directions(kernel, 0), kernel)
    assert not without_directions(np.zeros((4, 4)), 1).any()


def test_directions_are_removed_from_the_named_layer_or_from_all():
    model = with_weights(network())
    before = arrays(model)
    attacked = projection(MARKED)(model, strength=2)
    assert changed(attacked, before) == {KERNEL}
    np.testing.assert_allclose(
        arrays(attacked)[KERNEL], without_directions(before[KERNEL], 2), atol=1e-6
    )
    kernels = {"one/kernel", KERNEL, f"{HEAD}/kernel"}
    assert changed(projection()(model, strength=2), before) == kernels


@pytest.mark.backends
def test_only_the_reinitialised_layer_is_trained(one_epoch, monkeypatch):
    model = network()
    before = arrays(model)
    attacked = reset(MARKED)(model, PICTURES, 0.05)
    assert changed(attacked, before) == {KERNEL}
    trained = arrays(attacked)[KERNEL]
    # 1,152 weights: 5 standard deviations.
    assert abs(correlation(trained, before[KERNEL])) < 0.15
    # It is trained, and not only re-initialised.
    monkeypatch.setattr(adaptive, "train", lambda *_, **__: None)
    initial = arrays(reset(MARKED)(model, PICTURES, 0.05))[KERNEL]
    assert correlation(initial, trained) > 0.5
    assert np.abs(initial - trained).max() > 0.001


def test_fine_tuning_after_a_reset_trains_every_layer(one_epoch):
    model = network()
    before = arrays(model)
    attacked = with_fine_tuning(reset(MARKED))(model, PICTURES, 0.05)
    assert changed(attacked, before) == set(before)


def test_several_layers_can_be_reinitialised(one_epoch):
    model = network()
    attack = reset([HEAD, MARKED])
    head = {f"{HEAD}/kernel", f"{HEAD}/bias"}
    assert changed(attack(model, PICTURES, 0.05), arrays(model)) == {KERNEL, *head}
    assert "'three'" in attack.title
    assert repr(HEAD) in attack.title


def test_without_a_name_every_layer_with_a_kernel_is_reinitialised(one_epoch):
    model = with_weights(network())
    attacked, before = arrays(reset()(model, PICTURES, 0.01)), arrays(model)
    for name in ("one/kernel", KERNEL):
        kernel, original = attacked[name], before[name]
        assert abs(correlation(kernel, original)) < 5 / original.size**0.5
    # Normalizations are kept.
    np.testing.assert_allclose(attacked["two/gamma"], before["two/gamma"], atol=0.1)


def test_an_unknown_layer_is_reported():
    for attack in (projection("seven"), reset("seven")):
        with pytest.raises(ValueError, match=r"no layer 'seven'.*'three'"):
            attack(network(), PICTURES)
