"""Measurements on a network, compared with the equations."""

import numpy as np
import pytest
from scipy import stats

from keras_wm.research.experiments.measurement import (
    measure_kernel,
    measure_mark,
    signed_outputs,
)
from keras_wm.research.experiments.schemes import SCHEMES, Mark, group_layer
from keras_wm.research.hosts.wide_resnet import wide_resnet
from tests.models import expected_ber, expected_crossentropy, expected_scores

BITS = 32
LAYERS = (group_layer(2),)


@pytest.fixture(scope="module")
def model():
    return wide_resnet((8, 8, 1), 3, n=1, k=1)


def kernel_of(model, group):
    return np.asarray(model.get_layer(group_layer(group)).kernel)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_mark_is_measured_by_the_papers_equations(model, scheme):
    mark = Mark(scheme, LAYERS, BITS)
    kernel, key = kernel_of(model, 2), mark.key()
    measured = measure_mark(model, mark)
    scores = expected_scores(kernel, key)
    assert measured["ber"] == expected_ber(kernel, key)
    assert measured["embedding_loss"] == pytest.approx(
        expected_crossentropy(kernel, key) / BITS
    )
    assert measured["z_mean"] == pytest.approx(scores.mean())
    assert measured["z_min"] == pytest.approx(scores.min())
    positive = signed_outputs(kernel, mark.key()) > 0
    np.testing.assert_array_equal(positive, scores > 0)


def test_a_mark_in_several_layers_is_measured_over_all_their_bits(model):
    mark = Mark("random", (group_layer(2), group_layer(3)), BITS)
    both = measure_mark(model, mark)
    # Each layer has a slot of its own.
    kernels = [np.asarray(model.get_layer(layer).kernel) for layer in mark.layers]
    pairs = [(kernel, mark.key().in_slot(slot)) for slot, kernel in enumerate(kernels)]
    scores = np.array([expected_scores(kernel, key) for kernel, key in pairs])
    assert both["ber"] == pytest.approx(np.mean(scores <= 0))
    assert both["z_mean"] == pytest.approx(scores.mean())
    losses = [expected_crossentropy(kernel, key) / BITS for kernel, key in pairs]
    assert both["embedding_loss"] == pytest.approx(np.mean(losses))
    # The smaller of two p-values, corrected for two tests.
    matches = np.sum(scores > 0, axis=1).max()
    best = stats.binom.logsf(matches - 1, BITS, 0.5) / np.log(10)
    assert both["log10_p_hard"] == pytest.approx(min(0, best + np.log10(2)))


def test_every_owner_has_a_different_key():
    first, second = (
        Mark("random", LAYERS, BITS, owner=owner).key() for owner in (0, 1)
    )
    assert first.commitment != second.commitment
    assert first.commitment == Mark("random", LAYERS, BITS).key().commitment


def test_the_test_error_is_the_share_of_wrong_answers(model, pictures):
    logits = np.asarray(model(pictures.x_test))
    wrong = np.mean(logits.argmax(axis=1) != pictures.y_test)
    assert pictures.test_error(model) == wrong


def test_the_histogram_covers_all_weights(rng):
    kernel = rng.normal(size=(3, 3, 4, 8))
    measured = measure_kernel(kernel)
    histogram = measured["histogram"]
    assert sum(histogram["counts"]) == kernel.size
    assert histogram["high"] == -histogram["low"] == np.abs(kernel).max()
    assert measured["kernel_std"] == pytest.approx(np.std(kernel))
    assert measured["mean_filter_std"] == pytest.approx(np.std(kernel.mean(axis=3)))
