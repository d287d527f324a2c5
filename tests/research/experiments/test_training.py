"""How networks come to be: from scratch, from another network, from a teacher."""

from dataclasses import replace

import numpy as np
import pytest

from keras_wm.research.experiments.schemes import HEAD, Mark, group_layer
from keras_wm.research.experiments.training import (
    TURNS,
    Training,
    convolutions,
    embedded,
    mark_of,
    take_over,
    train,
)
from keras_wm.research.hosts.wide_resnet import wide_resnet
from keras_wm.scheme.detection import detect

BITS = 32


def no_parent(training):
    raise AssertionError(f"{training} is not needed")


def network(classes=3):
    return wide_resnet((8, 8, 1), classes, n=1, k=1)


def arrays(model):
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


def test_a_mark_is_embedded_from_scratch_and_the_task_is_learned(settings, pictures):
    mark = Mark("default", (group_layer(3),), BITS)
    model, history = train(Training(0, 4, mark), settings, pictures, no_parent)
    kernel = np.asarray(model.get_layer(group_layer(3)).kernel)
    assert detect(kernel, mark.key()).ber == 0
    assert history["ber"][-1] == 0
    # Before training, and after each of four epochs.
    assert [len(history[name]) for name in ("test_error", "ber", "loss")] == [5, 5, 4]
    # Guessing is wrong of two thirds.
    assert history["test_error"][-1] < 0.3


def test_weights_decay_as_the_settings_say(settings, pictures):
    norms = []
    for decay in (0.0, 0.1):
        model, _ = train(
            Training(0, 2), replace(settings, weight_decay=decay), pictures, no_parent
        )
        norms.append(np.linalg.norm(model.get_layer(group_layer(3)).kernel))
    assert norms[1] < 0.8 * norms[0]


def test_training_follows_its_seed(settings, pictures):
    first, again, other = (
        train(Training(seed, 1), settings, pictures, no_parent)[0] for seed in (1, 1, 2)
    )
    kernels = [np.asarray(one.get_layer(HEAD).kernel) for one in (first, again, other)]
    np.testing.assert_allclose(kernels[0], kernels[1], atol=1e-4)
    assert np.abs(kernels[0] - kernels[2]).max() > 0.01


@pytest.mark.parametrize("task", ["pictures", TURNS])
def test_fine_tuning_starts_from_the_other_network_but_for_a_new_head(task):
    source, model = network(), network(3 if task == "pictures" else 4)
    own_head = model.get_layer(HEAD).get_weights()
    take_over(source, model, Training(1, 1, task=task, start=Training(0, 1)))
    found, was = arrays(model), arrays(source)
    expected_head = was[HEAD] if task == "pictures" else own_head
    for left, right in zip(found.pop(HEAD), expected_head, strict=True):
        np.testing.assert_array_equal(left, right)
    del was[HEAD]
    for name, weights in found.items():
        for left, right in zip(weights, was[name], strict=True):
            np.testing.assert_array_equal(left, right)


def test_what_is_pruned_stays_so_while_the_rest_is_trained(settings, pictures):
    source = network()
    training = Training(1, 1, start=Training(0, 1), pruned=0.8)
    model, history = train(training, settings, pictures, lambda _: source)
    for layer in convolutions(model):
        before = np.abs(np.asarray(source.get_layer(layer.name).kernel)).reshape(-1)
        after = np.asarray(layer.kernel).reshape(-1)
        gone = np.argsort(before, kind="stable")[: round(0.8 * before.size)]
        assert not after[gone].any()
        assert np.sum(after != 0) == before.size - len(gone)
    # Curves are of networks from scratch.
    assert history == {}


def test_a_student_sees_no_label(settings, pictures):
    teacher = network()
    mark = Mark("random", (group_layer(2),), BITS)
    training = Training(1, 1, mark, teacher=Training(0, 1))
    found = []
    for labels in (pictures.y_train, 2 - pictures.y_train):
        other = type(pictures)(
            "made", pictures.x_train, labels, pictures.x_test, pictures.y_test
        )
        model, _ = train(training, settings, other, lambda _: teacher)
        found.append(np.asarray(model.get_layer(group_layer(2)).kernel))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_the_mark_looked_for_in_an_unmarked_network_is_one_of_kind_random(settings):
    assert embedded(settings, "unmarked", 3) is None
    assert mark_of(settings, "unmarked", 3) == mark_of(settings, "random", 3)
    assert mark_of(settings, "random", 3).owner == 3


def test_a_network_knows_the_one_from_scratch_that_it_needs():
    first = Training(0, 5)
    second = Training(1, 5, start=first)
    third = Training(2, 5, teacher=second)
    assert first.first is first and first.from_scratch
    assert third.first == second.first == first
    assert not third.from_scratch
