"""Training: fits that get better, models that grow, and the whole loop."""

import keras
import numpy as np
import pytest

from keras_wm import WatermarkRegularizer
from keras_wm.embedding.kernel_projection import without_capacity_warnings
from keras_wm.scheme.detection import detect
from keras_wm.slmc.double_exchange import DoubleExchange
from keras_wm.slmc.lattice import square_lattice
from keras_wm.slmc.learning.fit import (
    Samples,
    centre,
    fit,
    grown,
    residuals,
    set_linear,
)
from keras_wm.slmc.learning.online import Schedule, learn, learn_from, learn_linear
from keras_wm.slmc.models.effective_model import (
    READOUT,
    attentions,
    effective_model,
    log_weights,
)
from keras_wm.slmc.models.linear_model import LinearModel, fit_linear
from keras_wm.slmc.spins import random_spins
from tests.conftest import fixed_key

LATTICE = square_lattice(4)
SHORT = Schedule(chains=64, proposals=8, sweeps=4, epochs=25)


def hot_samples(count=1500, beta=6.0, seed=0):
    spins = random_spins(np.random.default_rng(seed), count, 16)
    weights = DoubleExchange(LATTICE, beta).log_weight(spins)
    return Samples.of_chains(spins[None], weights[None])


def test_least_squares_find_the_couplings_that_made_the_weights():
    spins = random_spins(np.random.default_rng(1), 200, 16)
    truth = LinearModel(LATTICE, np.array([-0.3, 0.2, 0.1]), 5.0)
    found = fit_linear(LATTICE, spins, truth.log_weight(spins), 3)
    np.testing.assert_allclose(found.couplings, truth.couplings, atol=1e-12)
    assert found.offset == pytest.approx(5.0)


def test_too_few_samples_for_a_fit_are_refused():
    samples = hot_samples(5)
    with pytest.raises(ValueError, match="To fit 5 couplings, more samples"):
        fit_linear(LATTICE, samples.spins, samples.log_weights)


def test_the_hypercubes_symmetry_is_found_by_a_fit():
    samples = hot_samples(4000)
    linear = fit_linear(LATTICE, samples.spins, samples.log_weights)
    # (1, 1) and (2, 0), which a fit takes for different shells.
    assert linear.couplings[1] == pytest.approx(linear.couplings[2], abs=0.005)
    assert abs(linear.couplings[1] - linear.couplings[0]) > 0.03


@pytest.mark.backends
def test_a_block_of_attention_fits_what_few_shells_do_not():
    held_out, kept = hot_samples().parted(0.2, seed=1)
    linear = fit_linear(LATTICE, kept.spins, kept.log_weights, 2)
    model = effective_model(LATTICE, 2)
    set_linear(model, linear)
    before = residuals(model, held_out).var()
    expected = held_out.log_weights - linear.log_weight(held_out.spins)
    assert before == pytest.approx(expected.var(), rel=1e-3)
    model = grown(model, seed=1)
    fit(model, kept, epochs=40, seed=1)
    assert residuals(model, held_out).var() < 0.8 * before
    # Centred where it was fitted.
    assert abs(residuals(model, kept).mean()) < 1e-3


@pytest.mark.backends
def test_a_fit_follows_from_its_seed():
    weights = []
    for seed in (1, 1, 2):
        model = grown(effective_model(LATTICE, 2), seed=5)
        fit(model, hot_samples(400), epochs=2, seed=seed)
        weights.append(keras.ops.convert_to_numpy(attentions(model)[0].kernel))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[0] - weights[2]).max() > 1e-6


def test_a_rate_that_is_too_large_makes_no_model_worse():
    held_out, kept = hot_samples().parted(0.2, seed=1)
    model = effective_model(LATTICE, 2)
    set_linear(model, fit_linear(LATTICE, kept.spins, kept.log_weights, 2))
    before = residuals(model, held_out).var()
    model = grown(model, seed=1, heads=4)
    fit(model, kept, epochs=10, learning_rate=1.0, seed=1)
    # At a smaller rate it learned.
    assert residuals(model, held_out).var() < 0.9 * before
    weights = model.get_weights()
    fit(model, kept, epochs=1, learning_rate=1e6, seed=1)
    assert model.get_weights()[0] == pytest.approx(weights[0])


@pytest.mark.backends
def test_a_model_grows_and_keeps_what_it_knew():
    small = effective_model(LATTICE, 2, blocks=1, heads=2)
    set_linear(small, LinearModel(LATTICE, np.array([-0.2, 0.1]), 3.0))
    larger = grown(small, seed=2, heads=2)
    assert [one.heads for one in attentions(larger)] == [2, 2]
    for name in ("attention1", READOUT):
        for one, other in zip(
            larger.get_layer(name).get_weights(),
            small.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)
    # In order, where a little of what all sites attend to would add up.
    spins = LATTICE.sublattice_signs[:, None] * np.array([0.0, 0.0, 1.0])
    spins = spins + 0.3 * np.random.default_rng(3).normal(size=(20, 16, 3))
    spins /= np.linalg.norm(spins, axis=-1, keepdims=True)
    before = log_weights(small, spins)
    assert np.ptp(before) > 1
    np.testing.assert_allclose(log_weights(larger, spins), before, atol=1e-4)


@pytest.mark.backends
def test_the_offset_takes_the_mean_of_what_is_missed():
    samples, model = hot_samples(300), effective_model(LATTICE, 2, blocks=1)
    centre(model, samples)
    assert abs(residuals(model, samples).mean()) < 1e-3


def test_chains_are_parted_as_a_whole_and_without_loss():
    rng = np.random.default_rng(4)
    spins = rng.normal(size=(7, 10, 16, 3))
    # As where proposals were rejected.
    spins[3:] = spins[3]
    samples = Samples.of_chains(spins, np.arange(70.0).reshape(7, 10))
    first, rest = samples.parted(0.3, seed=4)
    assert (len(first), len(rest)) == (21, 49)
    again = first + rest
    np.testing.assert_array_equal(np.sort(again.log_weights), np.arange(70))
    for one in (first, rest):
        places = one.log_weights.astype(int)
        np.testing.assert_array_equal(one.spins, spins.reshape(70, 16, 3)[places])
        np.testing.assert_array_equal(one.chains, places % 10)
    assert not set(first.chains) & set(rest.chains)
    with pytest.raises(ValueError, match="samples of 1 chains"):
        hot_samples(1).parted(0.5, seed=1)


def test_a_fit_leaves_the_random_numbers_of_others_alone():
    model = grown(effective_model(LATTICE, 2), seed=5)
    np.random.seed(7)
    expected = np.random.RandomState(7).random()
    fit(model, hot_samples(100), epochs=1)
    assert np.random.random() == expected


@pytest.mark.parametrize("wrong", [{"chains": 0}, {"epochs": -1}, {"learning_rate": 0}])
def test_a_schedule_that_does_nothing_is_refused(wrong):
    with pytest.raises(
        ValueError, match=f"positive number. Received: {next(iter(wrong))}"
    ):
        Schedule(**wrong)


def test_a_single_chain_learns_nothing():
    with pytest.raises(ValueError, match=r"two chains or more.*chains=1"):
        Schedule(chains=1)


def test_learning_with_the_next_seed_has_other_random_numbers():
    """Local updates by one stream come together, from wherever they start."""
    model = DoubleExchange(LATTICE, beta=10.0)
    spins = [learn_linear(model, 1, SHORT, seed)[1] for seed in (0, 1)]
    alike = np.sum(spins[0] * spins[1], axis=-1).mean()
    # Of independent spins 0, in 64 chains of 16 within 4 standard errors.
    assert abs(alike) < 4 / np.sqrt(3 * 64 * 16) + 0.05


def test_learning_online_raises_what_is_accepted():
    model = DoubleExchange(LATTICE, beta=10.0)
    linear, deep = learn(model, shells=1, blocks=1, schedule=SHORT, seed=1)
    assert (linear.blocks, linear.fitted) == (0, 64 * 8)
    assert (deep.blocks, deep.fitted) == (1, 64 * 8)
    assert deep.variance < 0.8 * linear.variance
    assert deep.acceptance > linear.acceptance + 0.03


def test_learning_from_samples_is_by_what_it_has_not_seen():
    samples = hot_samples()
    linear, deep = learn_from(LATTICE, samples, 1, 1, SHORT, seed=2)
    held_out, kept = samples.parted(0.125, seed=2)
    assert linear.fitted == deep.fitted == len(kept)
    expected = fit_linear(LATTICE, kept.spins, kept.log_weights, 1)
    missed = held_out.log_weights - expected.log_weight(held_out.spins)
    assert linear.variance == pytest.approx(missed.var(), rel=1e-3)
    assert deep.variance < 0.8 * linear.variance
    assert np.isnan(deep.acceptance)


@pytest.mark.backends
def test_a_trained_model_is_saved_without_its_training(tmp_path):
    model = grown(effective_model(LATTICE, 2), seed=1)
    fit(model, hot_samples(300), epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    spins = hot_samples(10).spins
    np.testing.assert_array_equal(log_weights(loaded, spins), log_weights(model, spins))


@pytest.mark.backends
def test_a_mark_stays_in_training_while_the_model_grows():
    key = fixed_key(8, groups=8)
    with without_capacity_warnings():
        mark = WatermarkRegularizer(key, strength=0.1, margin=1.5)
        model = grown(effective_model(LATTICE, 4), 1, 8, mark)
        model = grown(model, 2)
        marked, free = attentions(model)
        assert (marked.kernel.regularizer, free.kernel.regularizer) == (mark, None)
        fit(model, hot_samples(500), epochs=25)
    found = detect(keras.ops.convert_to_numpy(marked.kernel), key)
    assert found.ber == 0
