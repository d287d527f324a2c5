"""Fine-tuning: which layers are trained, and which are re-initialised."""

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
    with_fine_tuning,
)
from keras_wm.research.attacks.pruning import FILTER_PRUNING, PRUNING
from tests.conftest import fixed_key
from tests.research.attacks.networks import subclassed
from tests.research.attacks.trained import (
    HEAD,
    MARKED,
    PICTURES,
    arrays,
    changed,
    correlation,
    network,
    outputs_of,
)

ALL = (FTLL, FTAL, RTLL, RTAL)
LAST = {f"{HEAD}/kernel", f"{HEAD}/bias"}

pytestmark = pytest.mark.usefixtures("one_epoch")


@pytest.mark.backends
@pytest.mark.parametrize("attack", ALL, ids=lambda attack: attack.name)
def test_only_the_last_layer_is_trained_or_all_are(attack):
    model = network(functional=attack in (FTLL, RTAL))
    before = arrays(model)
    attacked = attack(model, PICTURES, 0.05)
    expected = LAST if attack in (FTLL, RTLL) else set(before)
    assert changed(attacked, before) == expected
    # The network itself is not changed, and the result can be trained further.
    assert changed(model, before) == set()
    assert not model.compiled and not attacked.compiled
    assert len(attacked.trainable_weights) == len(model.trainable_weights)


@pytest.mark.backends
def test_the_task_is_learned_from_logits_and_probabilities(learned):
    model, data = learned
    outputs = outputs_of(model)
    if outputs.shape[1] == 1:
        activation = model.layers[-1].activation
        threshold = 0.5 if activation is keras.activations.sigmoid else 0
        # Guessing misclassifies a third of the pictures at best.
        predicted, limit = outputs[:, 0] > threshold, 0.15
    else:
        # Guessing misclassifies two thirds.
        predicted, limit = outputs.argmax(axis=1), 0.25
    error = np.mean(predicted != data.y_test)
    assert error < limit
    assert data.test_error(model) == error


def test_labels_require_a_model_with_one_input_and_one_output():
    inputs = [keras.Input((8, 8, 1)), keras.Input((8, 8, 1))]
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(inputs[0] + inputs[1]))
    for model, message in (
        (keras.Model(inputs, outputs), "Functional with 2 inputs and 1 outputs"),
        (subclassed(PICTURES.x_test), "Subclassed with 0 inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            training.check_data(model, PICTURES)


def test_a_new_head_is_independent_of_the_old_one():
    model = network()
    model.get_layer(HEAD).bias.assign([5.0, -5.0, 5.0])
    kept, fresh = (attack(model, PICTURES, 0.001) for attack in (FTLL, RTLL))
    assert changed(fresh, arrays(model)) == LAST
    old = arrays(model)
    # 48 weights: 0.5 is 3.5 standard deviations, and the seed is fixed.
    kernel = f"{HEAD}/kernel"
    assert abs(correlation(arrays(fresh)[kernel], old[kernel])) < 0.5
    assert correlation(arrays(kept)[kernel], old[kernel]) > 0.95
    assert np.abs(arrays(fresh)[f"{HEAD}/bias"]).max() < 1


def test_a_fixed_seed_of_an_initializer_does_not_restore_the_first_head():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    fixed = keras.initializers.GlorotUniform(seed=7)
    outputs = keras.layers.Dense(3, kernel_initializer=fixed, name=HEAD)(x)
    model = keras.Model(inputs, outputs)
    attacked = RTLL(model, PICTURES, 0.001)
    kernel = f"{HEAD}/kernel"
    # 192 weights: 5 standard deviations.
    assert abs(correlation(arrays(attacked)[kernel], arrays(model)[kernel])) < 0.36


def test_the_attackers_seed_does_not_restore_the_owners_initial_weights():
    model = network(seed=0)
    kernel = f"{HEAD}/kernel"
    attacked = RTLL(model, PICTURES, 0.001, seed=0)
    assert abs(correlation(arrays(attacked)[kernel], arrays(model)[kernel])) < 0.5


@pytest.mark.backends
def test_the_random_seed_determines_the_result():
    model = network()
    first, again, other = (
        arrays(RTAL(model, PICTURES, 0.05, seed)) for seed in (1, 1, 2)
    )
    kernel = f"{HEAD}/kernel"
    for name, weights in first.items():
        np.testing.assert_allclose(again[name], weights, atol=1e-5)
    assert np.abs(other[kernel] - first[kernel]).max() > 1e-4


def test_the_networks_own_weight_decay_stays_active():
    model = network()
    penalty = 0.01 * np.sum(arrays(model)["one/kernel"] ** 2)
    assert float(sum(published_copy(model).losses)) == pytest.approx(penalty)
    model.get_layer("one").kernel_regularizer = keras.regularizers.L2(1.0)
    attacked = FTAL(model, PICTURES, 0.005)
    decayed, free = (
        np.linalg.norm(arrays(attacked)[name]) / np.linalg.norm(arrays(model)[name])
        for name in ("one/kernel", f"{MARKED}/kernel")
    )
    # Each of four steps shrinks the kernel by 1 %, and momentum about doubles that.
    assert decayed < 0.94 < 0.98 < free


def test_the_owners_mark_gets_no_penalty():
    model = network()
    keras_wm.attach(model, MARKED, fixed_key())
    marked = arrays(FTAL(model, PICTURES, 0.01))
    keras_wm.detach(model)
    for name, weights in arrays(FTAL(model, PICTURES, 0.01)).items():
        np.testing.assert_allclose(weights, marked[name], atol=1e-5)


def test_layers_that_the_owner_froze_are_trained():
    model = network()
    model.get_layer(MARKED).trainable = False
    attacked = FTAL(model, PICTURES, 0.05)
    assert f"{MARKED}/kernel" in changed(attacked, arrays(model))
    assert not model.get_layer(MARKED).trainable


@pytest.mark.backends
@pytest.mark.parametrize(
    "pruning", [PRUNING, FILTER_PRUNING], ids=lambda attack: attack.name
)
def test_pruned_weights_stay_zero_while_the_others_are_trained(pruning):
    model = network()
    pruned = arrays(pruning(model, strength=0.7))
    attack = with_fine_tuning(pruning, keep_zeros=True)
    attacked = attack(model, PICTURES, 0.7)
    for name, weights in arrays(attacked).items():
        if name.endswith("kernel"):
            np.testing.assert_array_equal(weights == 0, pruned[name] == 0)
    assert changed(attacked, pruned) == set(pruned)
    # The result has no constraint any more.
    assert all(weight.constraint is None for weight in attacked.trainable_weights)


def test_fine_tuning_can_follow_any_attack():
    model = network()
    tuned = with_fine_tuning(PERMUTATION)
    assert tuned.name == "permutation-fine-tuned"
    assert tuned.needs_data and not PERMUTATION.needs_data
    first = arrays(PERMUTATION(model, strength=1.0, seed=1))
    after = arrays(tuned(model, PICTURES, 1.0, seed=1))
    kernel = f"{MARKED}/kernel"
    assert correlation(first[kernel], after[kernel]) > 0.9
    assert np.abs(first[kernel] - after[kernel]).max() > 1e-4


def test_small_data_are_used_for_320_steps_and_large_data_once(monkeypatch):
    monkeypatch.undo()

    def epochs(count):
        x, y = np.zeros((count, 1, 1, 1), np.float32), np.zeros(count, int)
        data = dataclasses.replace(PICTURES, x_train=x, y_train=y)
        return training.fine_tuning_epochs(data)

    assert [epochs(count) for count in (1257, 32, 10_240, 50_000)] == [8, 320, 1, 1]


def test_missing_data_are_reported():
    with pytest.raises(ValueError, match=r"'ftal' trains.*data=None"):
        FTAL(network())


def test_labels_without_an_output_are_rejected():
    wrong = dataclasses.replace(PICTURES, y_train=PICTURES.y_train + 1)
    with pytest.raises(ValueError, match=r"labels from 1 to 3, .*\(None, 3\)"):
        FTAL(network(), wrong)
    below = dataclasses.replace(PICTURES, y_train=PICTURES.y_train - 1)
    with pytest.raises(ValueError, match="labels from -1 to 1"):
        FTAL(network(), below)


def test_pictures_of_another_shape_are_rejected():
    wrong = dataclasses.replace(PICTURES, x_train=PICTURES.x_train[:, 1:])
    with pytest.raises(ValueError, match=r"\(8, 8, 1\).*Received: .*\(7, 8, 1\)"):
        FTAL(network(), wrong)


def test_a_rate_out_of_range_is_rejected():
    with pytest.raises(ValueError, match=r"from 0\.001 to 0\.1 \(learning rate\)"):
        FTAL(network(), PICTURES, 1.0)


def test_a_network_without_a_head_is_reported():
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


def test_a_network_that_is_not_built_is_reported():
    with pytest.raises(ValueError, match=r"model that is built.*Received: 'unbuilt'"):
        FTAL(keras.Sequential([keras.layers.Dense(3)], name="unbuilt"), PICTURES)
