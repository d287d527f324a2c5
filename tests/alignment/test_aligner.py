"""Finding the owner's channels again in weights that were rearranged."""

import keras
import numpy as np
import pytest

from keras_wm.alignment.aligner import Aligner
from keras_wm.errors import AlignmentError
from keras_wm.research.attacks import equivalence, obfuscation
from keras_wm.research.attacks.architecture import graph_of, weights_of
from keras_wm.research.hosts.wide_resnet import wide_resnet
from keras_wm.scheme.detection import detect
from tests.conftest import fixed_key
from tests.marked_model import with_mark
from tests.research.attacks.networks import BUILDERS, plain, with_weights

KERNEL = ("conv2_block1_conv2", "kernel")


def arrays(model):
    return {
        name: np.asarray(one, np.float64) for name, one in weights_of(model).items()
    }


def aligner(network, suspect):
    return Aligner(graph_of(network), arrays(network), arrays(suspect))


def aligned(network, suspect, name):
    return aligner(network, suspect).align_without(name).aligned(name)


def cosine(left, right):
    return np.sum(left * right) / np.linalg.norm(left) / np.linalg.norm(right)


def kernels(network):
    return [
        name
        for name, one in weights_of(network).items()
        if name[1] == "kernel" and len(one.shape) > 1
    ]


@pytest.mark.parametrize("kind", ["wide residual", "plain", "separated"])
def test_every_kernel_is_found_again_by_all_others(kind):
    network = with_weights(BUILDERS[kind]())
    suspect = equivalence.CHAINED(network, seed=5)
    together = aligner(network, suspect)
    for name in kernels(network):
        found = together.align_without(name).aligned(name)
        # What was found out for another one makes no difference.
        np.testing.assert_array_equal(found, aligned(network, suspect, name))
        expected = arrays(network)[name]
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    "attack", [obfuscation.ZERO_NEURONS, obfuscation.SPLIT_NEURONS]
)
def test_neurons_that_were_added_are_left_out(attack):
    network = with_weights(wide_resnet((8, 8, 1), 10, n=1, k=1))
    suspect = equivalence.CHAINED(attack(network, seed=2), seed=5)
    alignment = aligner(network, suspect).align_without(KERNEL)
    assert alignment.correspondence.added == 2 * (8 + 16 + 32)
    assert cosine(alignment.aligned(KERNEL), arrays(network)[KERNEL]) > 0.999


def test_what_was_trained_on_after_is_found_again_too():
    network = with_weights(wide_resnet((8, 8, 1), 10, n=1, k=1))
    suspect = equivalence.CHAINED(network, seed=5)
    rng = np.random.default_rng(0)
    for one in suspect.weights:
        values = np.asarray(one)
        one.assign(values * (1 + 0.3 * rng.normal(size=values.shape)))
    # Of independent changes by 30 %, a cosine of 1 / sqrt(1 + 0.3 ** 2) = 0.96 is left.
    expected = arrays(network)[KERNEL]
    assert cosine(aligned(network, suspect, KERNEL), expected) > 0.93


def test_signs_are_told_by_what_keeps_its_sign_in_training():
    """A factor of a normalization, not a bias or a mean, which are about 0."""
    network = with_weights(plain())
    suspect = equivalence.SIGN_FLIPS(network, seed=3)
    rng = np.random.default_rng(0)
    for one in suspect.weights:
        if one.name in ("bias", "moving_mean"):
            one.assign(0.4 * rng.normal(size=one.shape))
    (name,) = (
        one for one in kernels(network) if arrays(network)[one].shape == (3, 3, 12, 16)
    )
    assert cosine(aligned(network, suspect, name), arrays(network)[name]) > 0.999


def test_a_single_weight_of_each_channel_does_not_tell_them_apart():
    inputs = keras.Input((20,))
    x = keras.layers.Dense(16, "relu")(inputs)
    x = keras.layers.Dense(16, "relu", name="last")(x)
    network = with_weights(keras.Model(inputs, keras.layers.Dense(1)(x)))
    suspect = equivalence.PERMUTATION(network, seed=3)
    with pytest.raises(AlignmentError, match="Cannot align last/kernel"):
        aligned(network, suspect, ("last", "kernel"))


def test_what_was_done_is_told():
    network = with_weights(plain())
    for attack, told in (
        (equivalence.PERMUTATION, "moved"),
        (equivalence.SIGN_FLIPS, "flipped"),
    ):
        suspect = attack(network, seed=3)
        found = aligner(network, suspect).align_without().correspondence
        assert getattr(found, told) > 0
        assert sum((found.moved > 0, found.flipped > 0, found.added > 0)) == 1
    untouched = aligner(network, network).align_without().correspondence
    assert (untouched.moved, untouched.flipped, untouched.added) == (0, 0, 0)


@pytest.mark.parametrize("filters", ["mean", "keyed"])
def test_an_unmarked_network_shows_no_more_of_the_mark_than_chance(filters):
    """N(0, 1) in mean and spread, with a false alarm in 2e9."""
    scores = scores_of_unmarked(filters, held_out=[KERNEL])
    assert abs(np.mean(scores)) * np.sqrt(scores.size) < 6
    assert abs(np.std(scores) - 1) * np.sqrt(2 * scores.size) < 6


def test_were_the_marked_kernel_looked_at_there_would_be_a_mark_in_every_network():
    scores = scores_of_unmarked("mean", held_out=[])
    assert np.mean(scores) * np.sqrt(scores.size) > 4


def scores_of_unmarked(filters, held_out):
    """The scores that a marked network's owner finds in 12 networks of no mark."""
    key = fixed_key(bits=64, filters=filters)
    network = with_weights(wide_resnet((8, 8, 1), 10, n=1, k=1))
    graph, owners = graph_of(network), arrays(network)
    owners[KERNEL] = with_mark(owners[KERNEL], key, 2)
    assert detect(owners[KERNEL], key).log10_p < -30
    found = []
    for seed in range(12):
        suspect = arrays(with_weights(network, seed + 1))
        kernel = (
            Aligner(graph, owners, suspect).align_without(*held_out).aligned(KERNEL)
        )
        found.append(detect(kernel, key).z)
    return np.concatenate(found)


@pytest.mark.parametrize("other", [{"k": 2}, {"classes": 7}])
def test_a_network_of_another_architecture_is_told(other):
    network = with_weights(wide_resnet((8, 8, 1), 10, n=1, k=1))
    options = {"classes": 10, "k": 1} | other
    suspect = with_weights(wide_resnet((8, 8, 3), n=1, **options))
    with pytest.raises(AlignmentError, match="reference model's architecture"):
        aligned(network, suspect, KERNEL)
