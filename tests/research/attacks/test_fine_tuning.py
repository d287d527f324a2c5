"""Fine-tuning: what is trained, and what starts anew."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm.research.attacks import training
from keras_wm.research.attacks.attack import published_copy
from keras_wm.research.attacks.equivalence import PERMUTATION
from keras_wm.research.attacks.fine_tuning import (
    FTAL,
    FTLL,
    RTAL,
    RTLL,
    then_fine_tuned,
)
from keras_wm.research.attacks.pruning import FILTER_PRUNING, PRUNING
from tests.conftest import fixed_key
from tests.research.attacks.networks import subclassed
from tests.research.attacks.trained import (
    HEAD,
    IS_THIRD,
    MARKED,
    PICTURES,
    arrays,
    changed,
    correlation,
    error_of,
    network,
)

ALL = (FTLL, FTAL, RTLL, RTAL)
LAST = {f"{HEAD}/kernel", f"{HEAD}/bias"}

by_name = pytest.mark.parametrize("attack", ALL, ids=lambda one: one.name)
pytestmark = pytest.mark.usefixtures("short")


@pytest.mark.backends
@by_name
def test_the_last_layer_alone_is_trained_or_all_are(attack):
    model = network(functional=attack in (FTLL, RTAL))
    before = arrays(model)
    attacked = attack(model, PICTURES, 0.05)
    expected = LAST if attack in (FTLL, RTLL) else set(before)
    assert changed(attacked, before) == expected
    # The network itself is left as it is, and what comes back can be trained.
    assert changed(model, before) == set()
    assert not model.compiled and not attacked.compiled
    assert len(attacked.trainable_weights) == len(model.trainable_weights)


@pytest.mark.backends
@pytest.mark.parametrize("activation", [None, "softmax"])
def test_the_task_is_learned_from_logits_and_probabilities(activation, monkeypatch):
    monkeypatch.setattr(training, "STEPS", 60)
    # Guessing is wrong of two thirds.
    assert error_of(RTAL(network(activation), PICTURES, 0.1)) < 0.25


@pytest.mark.backends
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_one_answer_does_for_two_classes(activation, monkeypatch):
    monkeypatch.setattr(training, "STEPS", 60)
    attacked = RTAL(network(activation, answers=1), IS_THIRD, 0.1)
    answers = attacked.predict(IS_THIRD.x_test, verbose=0)[:, 0]
    third = answers > (0.5 if activation else 0)
    # Guessing is wrong of a third, at best.
    assert np.mean(third != IS_THIRD.y_test) < 0.15
    assert IS_THIRD.test_error(attacked) == np.mean(third != IS_THIRD.y_test)


def test_labels_train_models_of_one_input_and_one_output():
    inputs = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    answers = keras.layers.Dense(3)(keras.layers.Flatten()(inputs[0] + inputs[1]))
    for model, told in (
        (keras.Model(inputs, answers), "Functional of 2 inputs and 1 outputs"),
        (subclassed(PICTURES.x_test), "Subclassed of 0 inputs"),
    ):
        with pytest.raises(ValueError, match=told):
            training.check_data(model, PICTURES)


def test_a_new_head_has_nothing_of_the_old_one():
    model = network()
    model.get_layer(HEAD).bias.assign([5.0, -5.0, 5.0])
    kept, anew = (attack(model, PICTURES, 0.001) for attack in (FTLL, RTLL))
    assert changed(anew, arrays(model)) == LAST
    old = arrays(model)
    # 48 weights: 0.5 is 3.5 standard deviations, and the seed is fixed.
    kernel = f"{HEAD}/kernel"
    assert abs(correlation(arrays(anew)[kernel], old[kernel])) < 0.5
    assert correlation(arrays(kept)[kernel], old[kernel]) > 0.95
    assert np.abs(arrays(anew)[f"{HEAD}/bias"]).max() < 1


def test_a_new_head_is_not_the_first_one_again_though_its_seed_was_set():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    fixed = keras.initializers.GlorotUniform(seed=7)
    outputs = keras.layers.Dense(3, kernel_initializer=fixed, name=HEAD)(x)
    model = keras.Model(inputs, outputs)
    anew = RTLL(model, PICTURES, 0.001)
    kernel = f"{HEAD}/kernel"
    # 192 weights: 5 standard deviations.
    assert abs(correlation(arrays(anew)[kernel], arrays(model)[kernel])) < 0.36


def test_an_attackers_seed_draws_none_of_what_the_owners_drew():
    model = network(seed=0)
    kernel = f"{HEAD}/kernel"
    anew = RTLL(model, PICTURES, 0.001, seed=0)
    assert abs(correlation(arrays(anew)[kernel], arrays(model)[kernel])) < 0.5


@pytest.mark.backends
def test_it_follows_its_seed():
    model = network()
    first, again, other = (
        arrays(RTAL(model, PICTURES, 0.05, seed)) for seed in (1, 1, 2)
    )
    kernel = f"{HEAD}/kernel"
    for name, was in first.items():
        np.testing.assert_allclose(again[name], was, atol=1e-5)
    assert np.abs(other[kernel] - first[kernel]).max() > 1e-4


def test_the_networks_own_weight_decay_goes_on():
    model = network()
    penalty = 0.01 * np.sum(arrays(model)["one/kernel"] ** 2)
    assert float(sum(published_copy(model).losses)) == pytest.approx(penalty)
    model.get_layer("one").kernel_regularizer = keras.regularizers.L2(1.0)
    attacked = FTAL(model, PICTURES, 0.005)
    decayed, free = (
        np.linalg.norm(arrays(attacked)[name]) / np.linalg.norm(arrays(model)[name])
        for name in ("one/kernel", f"{MARKED}/kernel")
    )
    # Twelve steps take a hundredth each, and momentum as much again and more.
    assert decayed < 0.9 < 0.98 < free


def test_a_mark_gets_no_penalty_any_more():
    model = network()
    keras_wm.attach(model, MARKED, fixed_key())
    marked = arrays(FTAL(model, PICTURES, 0.01))
    keras_wm.detach(model)
    for name, weights in arrays(FTAL(model, PICTURES, 0.01)).items():
        np.testing.assert_allclose(weights, marked[name], atol=1e-5)


def test_what_the_owner_froze_is_trained_too():
    model = network()
    model.get_layer(MARKED).trainable = False
    attacked = FTAL(model, PICTURES, 0.05)
    assert f"{MARKED}/kernel" in changed(attacked, arrays(model))
    assert not model.get_layer(MARKED).trainable


@pytest.mark.backends
@pytest.mark.parametrize("pruning", [PRUNING, FILTER_PRUNING], ids=lambda one: one.name)
def test_what_is_pruned_stays_so_while_the_rest_is_trained(pruning):
    model = network()
    pruned = arrays(pruning(model, strength=0.7))
    attack = then_fine_tuned(pruning, zeros_stay=True)
    attacked = attack(model, PICTURES, 0.7)
    for name, weights in arrays(attacked).items():
        if name.endswith("kernel"):
            np.testing.assert_array_equal(weights == 0, pruned[name] == 0)
    assert changed(attacked, pruned) == set(pruned)
    # What comes back may be trained whole.
    assert all(one.constraint is None for one in attacked.trainable_weights)


def test_any_attack_may_be_fine_tuned_after():
    model = network()
    tuned = then_fine_tuned(PERMUTATION)
    assert tuned.name == "permutation-fine-tuned"
    assert tuned.needs_data and not PERMUTATION.needs_data
    first = arrays(PERMUTATION(model, strength=1.0, seed=1))
    after = arrays(tuned(model, PICTURES, 1.0, seed=1))
    kernel = f"{MARKED}/kernel"
    assert correlation(first[kernel], after[kernel]) > 0.9
    assert np.abs(first[kernel] - after[kernel]).max() > 1e-4


def test_small_data_are_seen_for_320_steps_and_large_ones_once(monkeypatch):
    monkeypatch.undo()

    def epochs(count):
        x, y = np.zeros((count, 1, 1, 1), np.float32), np.zeros(count, int)
        data = dataclasses.replace(PICTURES, x_train=x, y_train=y)
        return training.fine_tuning_epochs(data)

    assert [epochs(count) for count in (1257, 32, 10_240, 50_000)] == [8, 320, 1, 1]


def test_data_are_asked_for():
    with pytest.raises(ValueError, match=r"'ftal' trains.*data=None"):
        FTAL(network())


def test_labels_without_an_answer_are_refused():
    wrong = dataclasses.replace(PICTURES, y_train=PICTURES.y_train + 1)
    with pytest.raises(ValueError, match=r"labels from 1 to 3, .*\(None, 3\)"):
        FTAL(network(), wrong)
    below = dataclasses.replace(PICTURES, y_train=PICTURES.y_train - 1)
    with pytest.raises(ValueError, match="labels from -1 to 1"):
        FTAL(network(), below)


def test_pictures_of_another_shape_are_refused():
    wrong = dataclasses.replace(PICTURES, x_train=PICTURES.x_train[:, 1:])
    with pytest.raises(ValueError, match=r"\(8, 8, 1\).*Received: .*\(7, 8, 1\)"):
        FTAL(network(), wrong)


def test_a_rate_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"from 0\.001 to 0\.1 \(learning rate\)"):
        FTAL(network(), PICTURES, 1.0)


def test_a_network_without_a_head_is_told():
    headless = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(2, 8, name="only"),
            keras.layers.Flatten(),
            keras.layers.Reshape((2, 1)),
            keras.layers.ZeroPadding1D((0, 1)),
            keras.layers.Flatten(),
        ]
    )
    with pytest.raises(ValueError, match=r"Expected a head.*\(None, 3\).*'only'"):
        RTLL(headless, PICTURES)


def test_a_network_that_is_not_built_is_told():
    with pytest.raises(ValueError, match=r"model that is built.*Received: 'unbuilt'"):
        FTAL(keras.Sequential([keras.layers.Dense(3)], name="unbuilt"), PICTURES)
