"""Evidence that is forged for models without a mark, before the verifier."""

import keras
import numpy as np
import pytest
from scipy import stats

import keras_wm
from keras_wm.research.attacks.architecture import arrays_of
from keras_wm.research.attacks.forging import (
    disputes,
    keys,
    references,
    selections,
)
from keras_wm.research.attacks.forging.forgery import core_years, fresh_key
from keras_wm.scheme.detection import detect

FIRST, LAST = "first", "last"


def network(seed=3):
    """An innocent network with three kernels."""
    rng = np.random.default_rng(seed)
    layers = [
        keras.layers.Dense(96, "relu", name=FIRST),
        keras.layers.Dense(64, "relu", name="second"),
        keras.layers.Dense(48, name=LAST),
    ]
    model = keras.Sequential([keras.Input((64,)), *layers])
    for layer in layers:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape) / 8)
    return model


@pytest.fixture(scope="module")
def innocent():
    return network()


@pytest.fixture
def inputs(rng):
    return rng.normal(size=(5, 64)).astype("float32")


def assert_no_evidence(found):
    assert not found.meets("independent")
    assert not found.meets("claimed")


def test_a_chosen_projection_reads_any_message_from_any_weights(rng):
    kernel = rng.normal(size=(3, 3, 16, 8))
    key = keys.solved_key(kernel, bits=100, seed=1)
    detection = detect(kernel, key)
    assert detection.ber == 0
    assert detection.log10_p < -9
    # X looks like an honest one: Kolmogorov-Smirnov at 1e-6, all seeded.
    assert stats.kstest(key.for_shape((144, 8)).matrix.ravel(), "norm").pvalue > 1e-6


def test_an_explicit_key_is_found_and_is_no_evidence(innocent):
    found = keys.explicit_key(innocent, FIRST, seed=1).verify()
    assert (found.verdict, found.standing) == ("proven", "private")
    assert "proves nothing by itself" in repr(found)
    assert_no_evidence(found)


@pytest.mark.parametrize(
    "forge", [references.crafted_reference, references.crafted_checkpoint]
)
def test_a_crafted_network_makes_an_innocent_one_look_marked(innocent, inputs, forge):
    forgery = forge(innocent, FIRST, seed=1)
    assert not keras_wm.verify(innocent, forgery.key).marked
    (crafted,) = forgery.arguments.values()
    np.testing.assert_allclose(crafted(inputs), innocent(inputs), atol=1e-5)
    found = forgery.verify()
    assert (found.verdict, found.standing) == ("proven", "private")
    assert repr(found).splitlines()[0].endswith("is not evidence for anybody else")
    assert_no_evidence(found)


def test_only_filters_that_can_be_reordered_are_crafted(innocent):
    with pytest.raises(ValueError, match=r"can be reordered\. Received: 'last'"):
        references.crafted_reference(innocent, LAST, seed=1)


def test_the_crafted_network_has_the_same_weights_in_another_order(innocent):
    crafted = references.crafted_network(innocent, FIRST, fresh_key(1))
    for name, array in arrays_of(innocent).items():
        changed = arrays_of(crafted)[name]
        np.testing.assert_array_equal(np.sort(changed, None), np.sort(array, None))


def test_a_marked_sibling_as_reference_does_not_shift_the_scores(innocent):
    # 20 keys, each marking its own reference. Kolmogorov-Smirnov at 1e-6, all seeded.
    p_values = []
    for seed in range(20):
        forgery = references.marked_sibling(innocent, FIRST, seed)
        assert keras_wm.verify(forgery.arguments["reference"], forgery.key).marked
        found = forgery.verify()
        assert not found.marked
        aligned = [a for a in found.attempts if a.name != "unaligned"]
        p_values += [10**attempt.detection.log10_p for attempt in aligned]
    assert len(p_values) == 20
    assert stats.kstest(p_values, "uniform").pvalue > 1e-6


def many_layers(count=60):
    """A network of many kernels of random weights."""
    rng = np.random.default_rng(5)
    layers = [keras.layers.Dense(32, name=f"d{number}") for number in range(count)]
    model = keras.Sequential([keras.Input((32,)), *layers])
    for layer in layers:
        layer.kernel.assign(rng.normal(size=layer.kernel.shape))
    return model


def test_the_best_subset_of_layers_is_counted():
    forgery = selections.best_subset(many_layers(), seed=2)
    found = forgery.verify()
    jointly = next(attempt for attempt in found.attempts if attempt.name == "jointly")
    assert 8 < len(forgery.arguments["layer"]) < 26
    # About 0.64 sqrt(60) standard deviations, before the sets are counted.
    assert jointly.detection.log10_p == pytest.approx(-6.4, abs=2.5)
    assert found.log10_p > -1
    assert_no_evidence(found)


def test_weights_that_no_layer_uses_are_set_apart(innocent, inputs, tmp_path):
    forgery = selections.unused_weights(innocent, FIRST, seed=1, folder=tmp_path)
    loaded = keras.saving.load_model(forgery.model)
    np.testing.assert_array_equal(loaded(inputs), innocent(inputs))
    found = forgery.verify()
    assert (found.verdict, found.marked) == ("unused", False)
    assert found.unused.log10_p < -19
    assert_no_evidence(found)


def test_the_best_of_n_secrets_has_a_p_value_of_about_1_over_n(rng):
    kernel = rng.normal(size=(40, 12))
    searched = keys.searched_keys(kernel, 32, trials=40, seed=2)
    p = [10**log10_p for _, log10_p in searched]
    # Keys are independent of the kernel, so p is uniform: Kolmogorov-Smirnov at 1e-6.
    assert stats.kstest(p, "uniform").pvalue > 1e-6
    # The smallest of 40 is below 0.4 in all but 1.4e-9 of cases.
    assert min(p) < 0.4


@pytest.mark.parametrize(
    ("search", "standing"),
    [
        (keys.ground_secret, "independent"),
        (keys.ground_owner, "independent"),
        (keys.free_groups, "private"),
        (keys.ground_recipients, "private"),
    ],
)
def test_a_search_finds_the_best_of_its_tries(innocent, search, standing):
    forgery = search(innocent, FIRST, seed=1, tries=20)
    found = forgery.verify()
    kernel = np.asarray(innocent.get_layer(FIRST).kernel)
    assert found.detection.log10_p == detect(kernel, forgery.key).log10_p
    # The best of 20 in all but 1e-9 of cases, and not below 1e-9.
    assert -9 < found.detection.log10_p < np.log10(0.65)
    assert forgery.tries == 20
    assert forgery.is_search
    assert found.standing == standing
    again = search(innocent, FIRST, seed=1, tries=20)
    assert again.key == forgery.key


def test_a_search_in_slots_is_counted(innocent):
    forgery = keys.ground_slots(innocent, FIRST, seed=1, tries=30)
    found = forgery.verify()
    assert not forgery.is_search
    assert found.finding.counted >= 30
    assert found.log10_p > -2


def test_core_years_are_those_of_one_over_p_tries():
    assert core_years(1e-9, 0.04) == pytest.approx(0.04e9 / (365.25 * 24 * 3600))


@pytest.fixture(scope="module")
def owners():
    """The owner's marked network and key."""
    model, key = network(), fresh_key(7, owner="owner")
    kernel = model.get_layer(FIRST).kernel
    kernel.assign(references.with_mark(np.asarray(kernel), key))
    return model, key


def test_an_explicit_key_and_an_unrelated_original_win_no_dispute(owners):
    model, key = owners
    thief = disputes.explicit_party(model, FIRST, seed=1)
    assert keras_wm.verify(model, thief.key).marked
    assert keras_wm.verify(thief.original, thief.key).marked
    comparison = keras_wm.compare(model, [keras_wm.Party(key, model), thief])
    assert comparison.first != thief.key.owner
