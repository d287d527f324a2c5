"""Alignment with the reference model, after attacks that keep the function."""

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


@pytest.fixture(scope="module")
def network():
    """A small residual network. Attacks change copies of it."""
    return with_weights(wide_resnet((8, 8, 1), 10, n=1, k=1))


def arrays(model):
    return {
        name: np.asarray(variable, np.float64)
        for name, variable in weights_of(model).items()
    }


def aligner(network, suspect):
    return Aligner(graph_of(network), arrays(network), arrays(suspect))


def aligned(network, suspect, name):
    return aligner(network, suspect).align_without(name).aligned(name)


def cosine(left, right):
    return np.sum(left * right) / np.linalg.norm(left) / np.linalg.norm(right)


def balanced(array):
    """Returns a kernel without scales, by normalizing its two last axes in turn."""
    array = array.copy()
    for axis in [-1, -2] * 200:
        others = tuple(np.delete(np.arange(array.ndim), axis))
        array /= np.sqrt((array**2).mean(axis=others, keepdims=True))
    return array


def kernels(network):
    return [
        name
        for name, variable in weights_of(network).items()
        if name[1] == "kernel" and len(variable.shape) > 1
    ]


@pytest.mark.parametrize("kind", ["wide residual", "plain", "separated"])
def test_every_kernel_is_restored_by_all_other_weights(kind):
    network = with_weights(BUILDERS[kind]())
    suspect = equivalence.CHAINED(network, seed=5)
    shared = aligner(network, suspect)
    for name in kernels(network):
        result = shared.align_without(name).aligned(name)
        expected = balanced(arrays(network)[name])
        result /= np.sqrt((result**2).mean())
        np.testing.assert_allclose(result, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["plain", "separated"])
def test_results_kept_from_other_alignments_make_no_difference(kind):
    network = with_weights(BUILDERS[kind]())
    suspect = equivalence.CHAINED(network, seed=5)
    shared = aligner(network, suspect)
    for name in kernels(network):
        result = shared.align_without(name).aligned(name)
        np.testing.assert_array_equal(result, aligned(network, suspect, name))


@pytest.mark.parametrize(
    "attack", [obfuscation.ZERO_NEURONS, obfuscation.SPLIT_NEURONS]
)
def test_added_neurons_are_left_out(network, attack):
    suspect = equivalence.CHAINED(attack(network, seed=2), seed=5)
    alignment = aligner(network, suspect).align_without(KERNEL)
    assert alignment.correspondence.changes["added"] == 2 * (8 + 16 + 32)
    assert cosine(alignment.aligned(KERNEL), balanced(arrays(network)[KERNEL])) > 0.999


def test_a_network_that_was_trained_further_is_aligned_too(network):
    suspect = equivalence.CHAINED(network, seed=5)
    rng = np.random.default_rng(0)
    for variable in suspect.weights:
        values = np.asarray(variable)
        variable.assign(values * (1 + 0.3 * rng.normal(size=values.shape)))
    # Independent changes by 30 % leave a cosine of 1 / sqrt(1 + 0.3 ** 2) = 0.96.
    expected = balanced(arrays(network)[KERNEL])
    assert cosine(aligned(network, suspect, KERNEL), expected) > 0.93


def test_signs_are_determined_by_values_far_from_zero():
    """The gammas of a normalization keep their signs in training, unlike biases."""
    network = with_weights(plain())
    suspect = equivalence.SIGN_FLIPS(network, seed=3)
    rng = np.random.default_rng(0)
    for variable in suspect.weights:
        if variable.name in ("bias", "moving_mean"):
            variable.assign(0.4 * rng.normal(size=variable.shape))
    name = kernels(network)[1]
    kernel = balanced(arrays(network)[name])
    assert kernel.shape == (3, 3, 12, 16)
    assert cosine(aligned(network, suspect, name), kernel) > 0.999


def test_one_weight_per_channel_does_not_distinguish_channels():
    inputs = keras.Input((20,))
    x = keras.layers.Dense(16, "relu")(inputs)
    x = keras.layers.Dense(16, "relu", name="last")(x)
    network = with_weights(keras.Model(inputs, keras.layers.Dense(1)(x)))
    suspect = equivalence.PERMUTATION(network, seed=3)
    with pytest.raises(AlignmentError, match="Cannot align last/kernel"):
        aligned(network, suspect, ("last", "kernel"))
    # The network from before the mark can be compared as a whole.
    result = aligner(network, suspect).align_without().aligned(("last", "kernel"))
    assert cosine(result, balanced(arrays(network)["last", "kernel"])) > 0.999


def test_only_the_changes_that_were_made_are_counted():
    network = with_weights(plain())
    for suspect, expected in (
        (equivalence.PERMUTATION(network, seed=3), ["moved"]),
        (equivalence.SIGN_FLIPS(network, seed=3), ["flipped"]),
        (network, []),
    ):
        changes = aligner(network, suspect).align_without().correspondence.changes
        assert [name for name, count in changes.items() if count] == expected


@pytest.fixture(scope="module")
def unmarked_scores(network):
    """Scores of a reference's two marks in 12 unmarked networks.

    The keys are the filters of the mark, and whether the marked kernel was left out of
    the alignment. Four networks are enough to show the bias if it was not.
    """
    keys = {filters: fixed_key(64, filters=filters) for filters in ("keyed", "mean")}
    graph, reference = graph_of(network), arrays(network)
    for key in keys.values():
        reference[KERNEL] = with_mark(reference[KERNEL], key, 2)
    suspect = keras.models.clone_model(network)
    scores = {}
    for seed in range(12):
        aligner = Aligner(graph, reference, arrays(with_weights(suspect, seed + 1)))
        for held_out in ([KERNEL], []) if seed < 4 else ([KERNEL],):
            kernel = aligner.align_without(*held_out).aligned(KERNEL)
            for filters, key in keys.items():
                case = scores.setdefault((filters, bool(held_out)), [])
                case.append(detect(kernel, key).z)
    for key in keys.values():
        assert detect(reference[KERNEL], key).log10_p < -20
    return {case: np.concatenate(z) for case, z in scores.items()}


@pytest.mark.study
@pytest.mark.parametrize("filters", ["mean", "keyed"])
def test_scores_of_unmarked_networks_are_standard_normal(unmarked_scores, filters):
    """Mean and variance are those of N(0, 1), with a false alarm rate of 2e-9."""
    scores = unmarked_scores[filters, True]
    assert abs(np.mean(scores)) * np.sqrt(scores.size) < 6
    assert abs(np.std(scores) - 1) * np.sqrt(2 * scores.size) < 6


@pytest.mark.study
def test_alignment_by_the_marked_kernel_itself_would_bias_the_scores(unmarked_scores):
    scores = unmarked_scores["mean", False]
    assert np.mean(scores) * np.sqrt(scores.size) > 4


@pytest.mark.parametrize("options", [{"k": 2}, {"classes": 7}])
def test_a_network_of_another_architecture_is_an_error(network, options):
    suspect = wide_resnet((8, 8, 3), n=1, **{"classes": 10, "k": 1, **options})
    with pytest.raises(AlignmentError, match="reference model's architecture"):
        aligned(network, suspect, KERNEL)
