"""Marks that are trained and read through an anchor."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_wm
from keras_wm import WatermarkRegularizer
from keras_wm.scheme.anchor import Anchor
from tests.conftest import fixed_key

pytestmark = pytest.mark.backends

SHAPE = (3, 3, 12, 48)
SIZE = 3 * 3 * 12


def made_anchor(seed=0, before=1, after=1, gain=2.0):
    inputs = SIZE // (before * after)
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(inputs, 6)))
    return Anchor(np.full(6, gain), directions, before, after)


def gradient_of(regularizer, kernel):
    """Returns the gradient of the penalty by the gradient step that SGD takes."""
    layer = layers.Conv2D(48, 3, use_bias=False, kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((3, 3, 12)), layer])
    layer.kernel.assign(kernel)
    model.compile(keras.optimizers.SGD(1.0), lambda y, outputs: 0.0 * outputs)
    zeros = np.zeros((1, 3, 3, 12), np.float32)
    model.train_on_batch(zeros, np.zeros((1, 1, 1, 48), np.float32))
    return kernel - keras.ops.convert_to_numpy(layer.kernel)


@pytest.mark.parametrize("recipient", [False, True])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 2)])
def test_the_loss_is_that_of_the_scores_that_are_read(before, after, recipient):
    kernel = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    key = fixed_key().for_recipient("a") if recipient else fixed_key()
    anchored = key.with_anchor(made_anchor(before=before, after=after))
    regularizer = WatermarkRegularizer(anchored, strength=0.5, margin=3.0)
    z = keras_wm.detect(kernel, anchored).z
    expected = 0.5 * np.sum(np.maximum(3.0 - z, 0) ** 2)
    assert float(regularizer(kernel)) == pytest.approx(expected, rel=1e-4)
    assert not np.allclose(z, keras_wm.detect(kernel, key).z, atol=0.1)


@pytest.mark.parametrize("recipient", [False, True])
def test_a_step_along_the_gradient_lowers_the_loss_as_it_promises(recipient):
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=SHAPE).astype(np.float32)
    key = fixed_key().for_recipient("a") if recipient else fixed_key()
    anchored = key.with_anchor(made_anchor(before=3, after=2))
    regularizer = WatermarkRegularizer(anchored, strength=1.0)
    gradient = gradient_of(regularizer, kernel)
    # Other changes than the gradient's have the same slope as the scores that are read.
    step = 0.02 * gradient / np.linalg.norm(gradient)
    margin = regularizer.scores(kernel)[1]
    before, after = (
        np.sum(np.maximum(margin - keras_wm.detect(weights, anchored).z, 0) ** 2)
        for weights in (kernel + step, kernel - step)
    )
    change = float(regularizer(kernel + step)) - float(regularizer(kernel - step))
    assert change == pytest.approx(before - after, rel=1e-2)
    assert change > 0


def test_training_embeds_a_mark_that_only_the_anchored_key_reads():
    key, rng = fixed_key(), np.random.default_rng(3)
    anchored = key.with_anchor(made_anchor())
    model = keras.Sequential(
        [keras.Input((3, 3, 12)), layers.Conv2D(48, 3, name="marked")]
    )
    before = keras_wm.verify(model, anchored)
    keras_wm.attach(model, "marked", anchored, strength=0.1)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = rng.normal(size=(64, 3, 3, 12)).astype(np.float32)
    model.fit(x, np.zeros((64, 1, 1, 48)), epochs=30, verbose=0)
    after = keras_wm.verify(model, anchored)
    assert not before.marked and after.verdict == "proven"
    assert not keras_wm.verify(model, key).marked
    assert not keras_wm.verify(model, key.with_anchor(made_anchor(1))).marked


def test_a_rebuilt_regularizer_needs_the_same_anchor():
    anchored = fixed_key(owner="anchored").with_anchor(made_anchor())
    config = WatermarkRegularizer(anchored).get_config()
    assert config["anchor"] == anchored.anchor.digest
    assert WatermarkRegularizer.from_config(config).key == anchored
    plain = anchored.with_anchor(None)
    with keras_wm.keys(plain), pytest.warns(UserWarning, match="with the anchor"):
        assert WatermarkRegularizer.from_config(config).key is None
    with keras_wm.keys(plain, anchored):
        assert WatermarkRegularizer.from_config(config).key == anchored
