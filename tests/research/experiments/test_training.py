"""Training from scratch, from another network, and from a teacher."""

from dataclasses import replace

import numpy as np
import pytest

from keras_wm.research.experiments.schemes import (
    HEAD,
    Mark,
    group_layer,
    owners_key,
)
from keras_wm.research.experiments.training import (
    ROTATIONS,
    Training,
    convolutions,
    copy_weights,
    embedded_mark,
    mark_to_test,
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


def test_training_from_scratch_embeds_the_mark_and_learns_the_task(settings, pictures):
    mark = Mark("default", (group_layer(3),), BITS)
    small_batches = replace(settings, batch=8)
    model, history = train(Training(0, 4, mark), small_batches, pictures, no_parent)
    kernel = np.asarray(model.get_layer(group_layer(3)).kernel)
    assert detect(kernel, mark.key()).ber == 0
    assert history["ber"][-1] == 0
    # Before training, and after each of four epochs.
    assert [len(history[name]) for name in ("test_error", "ber", "loss")] == [5, 5, 4]
    # By chance, two thirds of the answers are wrong.
    assert history["test_error"][-1] < 0.3


def test_an_anchored_mark_is_embedded_after_a_warm_up(settings, pictures):
    mark = Mark("anchored", (group_layer(3),), BITS, owner=77)
    training = Training(0, 6, mark)
    small_batches = replace(settings, batch=8, decoupled=True)
    model, history = train(training, small_batches, pictures, no_parent)
    assert mark.key().anchor is not None
    kernel = np.asarray(model.get_layer(group_layer(3)).kernel)
    assert detect(kernel, mark.key()).ber == 0
    # Two of the six epochs are without a mark.
    assert min(history["ber"][:3]) > 0.2 and history["ber"][-1] == 0
    # A stored network brings its anchors.
    anchors = mark.anchors()
    owners_key.cache_clear()
    assert mark.key().anchor is None
    mark.keep_anchors(anchors)
    assert detect(kernel, mark.key()).ber == 0


@pytest.mark.usefixtures("eager")
def test_weights_decay_as_the_settings_say(settings, pictures):
    norms = []
    for decay in (0.0, 0.9):
        decaying = replace(settings, weight_decay=decay)
        model, _ = train(Training(0, 1), decaying, pictures, no_parent)
        norms.append(np.linalg.norm(model.get_layer(group_layer(3)).kernel))
    assert norms[1] < 0.8 * norms[0]


@pytest.mark.usefixtures("eager")
def test_training_follows_its_seed(settings, pictures):
    models = [
        train(Training(seed, 1), settings, pictures, no_parent)[0] for seed in (1, 1, 2)
    ]
    first, again, other = (np.asarray(model.get_layer(HEAD).kernel) for model in models)
    np.testing.assert_allclose(first, again, atol=1e-4)
    assert np.abs(first - other).max() > 0.01


def test_fine_tuning_copies_all_weights_except_the_head_of_another_task():
    source = network()
    before = arrays(source)
    for task, classes in (("pictures", 3), (ROTATIONS, 4)):
        model = network(classes)
        expected = before | {HEAD: model.get_layer(HEAD).get_weights()}
        if task == "pictures":
            expected = before
        copy_weights(source, model, Training(1, 1, task=task, start=Training(0, 1)))
        copied = arrays(model)
        assert copied.keys() == expected.keys()
        for name, weights in copied.items():
            for left, right in zip(weights, expected[name], strict=True):
                np.testing.assert_array_equal(left, right)


@pytest.mark.usefixtures("eager")
def test_pruned_weights_stay_zero_while_the_rest_is_trained(settings, pictures):
    source = network()
    training = Training(1, 1, start=Training(0, 1), pruned=0.8)
    model, history = train(training, settings, pictures, lambda _: source)
    for layer in convolutions(model):
        before = np.abs(np.asarray(source.get_layer(layer.name).kernel)).reshape(-1)
        after = np.asarray(layer.kernel).reshape(-1)
        pruned = np.argsort(before, kind="stable")[: round(0.8 * before.size)]
        assert not after[pruned].any()
        assert np.sum(after != 0) == before.size - len(pruned)
    # Only networks from scratch have a history.
    assert history == {}


@pytest.mark.usefixtures("eager")
def test_a_student_learns_without_labels(settings, pictures):
    teacher = network()
    mark = Mark("random", (group_layer(2),), BITS)
    training = Training(1, 1, mark, teacher=Training(0, 1))
    kernels = []
    for labels in (pictures.y_train, 2 - pictures.y_train):
        relabelled = replace(pictures, y_train=labels)
        model, _ = train(training, settings, relabelled, lambda _: teacher)
        kernels.append(np.asarray(model.get_layer(group_layer(2)).kernel))
    np.testing.assert_allclose(*kernels, atol=1e-5)


def test_an_unmarked_network_is_tested_for_a_mark_of_kind_random(settings):
    assert embedded_mark(settings, "unmarked", 3) is None
    assert mark_to_test(settings, "unmarked", 3) == mark_to_test(settings, "random", 3)
    assert mark_to_test(settings, "random", 3).owner == 3


def test_a_training_knows_the_network_from_scratch_that_it_needs():
    first = Training(0, 5)
    second = Training(1, 5, start=first)
    third = Training(2, 5, teacher=second)
    assert first.root is first and first.from_scratch
    assert third.root == second.root == first
    assert not third.from_scratch


def test_only_a_marked_network_has_a_mark_of_its_own(settings):
    mark = mark_to_test(settings, "random", 0)
    assert Training(0, 1, mark).own_mark == mark
    with pytest.raises(ValueError, match="Expected a marked network"):
        Training(0, 1).own_mark  # noqa: B018 (the property raises)
