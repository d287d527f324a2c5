"""Fits reduce the variance and change nothing but the weights."""

import keras
import numpy as np
import pytest

from keras_wm import WatermarkRegularizer
from keras_wm.embedding.loss.kernel_projection import without_capacity_warnings
from keras_wm.scheme.detection import detect
from keras_wm.slmc.learning import fit as fit_module
from keras_wm.slmc.learning.fit import centre, fit, residuals
from keras_wm.slmc.models.effective_model import (
    attentions,
    effective_model,
    log_weights,
    set_linear,
    with_extra_block,
)
from keras_wm.slmc.models.linear_model import fit_linear
from tests.conftest import fixed_key
from tests.slmc.learning.data import LATTICE, hot_samples

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


@pytest.fixture(autouse=True)
def _without_xla(monkeypatch):
    """XLA takes longer to compile than these fits run. `test_online` uses it."""
    if ON_TENSORFLOW:
        monkeypatch.setattr(fit_module, "JIT_COMPILE", False)


@pytest.fixture
def eager():
    """Runs fits of a few steps without tracing, which takes longer than the steps."""
    if not ON_TENSORFLOW:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.backends
@pytest.mark.study
def test_a_block_of_attention_fits_what_two_shells_do_not():
    held_out, kept = hot_samples(3200).split_chains(0.2, seed=1)
    linear = fit_linear(LATTICE, kept.spins, kept.log_weights, 2)
    model = effective_model(LATTICE, 2)
    set_linear(model, linear)
    before = residuals(model, held_out).var()
    expected = held_out.log_weights - linear.log_weight(held_out.spins)
    assert before == pytest.approx(expected.var(), rel=1e-3)
    model = with_extra_block(model, seed=1)
    fit(model, kept, epochs=16, seed=1)
    assert residuals(model, held_out).var() < 0.8 * before
    # The offset is that of the training data.
    assert abs(residuals(model, kept).mean()) < 1e-3


@pytest.mark.backends
@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
def test_a_fit_depends_on_its_seed_only():
    weights = []
    for seed in (1, 1, 2):
        model = with_extra_block(effective_model(LATTICE, 2), seed=5)
        fit(model, hot_samples(512), epochs=2, seed=seed)
        weights.append(keras.ops.convert_to_numpy(attentions(model)[0].kernel))
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[0] - weights[2]).max() > 1e-6


@pytest.mark.study
def test_a_learning_rate_that_is_too_large_does_not_make_a_model_worse():
    held_out, kept = hot_samples().split_chains(0.2, seed=1)
    model = effective_model(LATTICE, 2)
    set_linear(model, fit_linear(LATTICE, kept.spins, kept.log_weights, 2))
    before = residuals(model, held_out).var()
    model = with_extra_block(model, seed=1, heads=4)
    fit(model, kept, epochs=10, learning_rate=1.0, seed=1)
    # A smaller rate was successful.
    assert residuals(model, held_out).var() < 0.9 * before
    weights = model.get_weights()
    fit(model, kept, epochs=1, learning_rate=1e6, seed=1)
    assert model.get_weights()[0] == pytest.approx(weights[0])


@pytest.mark.backends
def test_centring_makes_the_mean_residual_zero():
    samples, model = hot_samples(300), effective_model(LATTICE, 2, blocks=1)
    centre(model, samples)
    assert abs(residuals(model, samples).mean()) < 1e-3


@pytest.mark.backends
@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config")
def test_a_fit_leaves_no_training_state_behind(tmp_path):
    """Neither in a saved model, nor in the global random state."""
    model = with_extra_block(effective_model(LATTICE, 2), seed=1)
    np.random.seed(7)
    expected = np.random.RandomState(7).random()
    fit(model, hot_samples(256), epochs=1)
    assert np.random.random() == expected
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    spins = hot_samples(10).spins
    np.testing.assert_array_equal(log_weights(loaded, spins), log_weights(model, spins))


@pytest.mark.study
@pytest.mark.backends
def test_a_watermark_is_embedded_while_further_blocks_are_added():
    key = fixed_key(8, groups=8)
    with without_capacity_warnings():
        mark = WatermarkRegularizer(key, strength=0.1, margin=1.5)
        model = with_extra_block(effective_model(LATTICE, 4), 1, 8, mark)
        model = with_extra_block(model, 2)
        marked, unmarked = attentions(model)
        assert marked.kernel.regularizer is mark
        assert unmarked.kernel.regularizer is None
        fit(model, hot_samples(1280), epochs=10)
    assert detect(keras.ops.convert_to_numpy(marked.kernel), key).ber == 0
