"""detach: it removes every penalty, and leaves the rest of a model unchanged."""

import keras
import numpy as np
import pytest

from keras_wm import attach, detach
from tests.conftest import fixed_key
from tests.models import (
    LAYER,
    MODELS,
    NoConfig,
    compile_model,
    data,
    dense_model,
    find_layer,
    fit,
    kernel_of,
    mark,
    nested_model,
    penalty,
)

pytestmark = pytest.mark.backends


def squared_norm(model, name=LAYER):
    return np.sum(kernel_of(model, name).astype(np.float64) ** 2)


@pytest.mark.parametrize("name", MODELS)
def test_detach_removes_the_constructors_mark_from_config_and_loss(key, name):
    model = MODELS[name](mark(key, regularizer="l2"))
    assert detach(model) == [LAYER]
    assert penalty(model) == pytest.approx(0.01 * squared_norm(model), rel=1e-5)
    config = keras.saving.serialize_keras_object(find_layer(model))
    assert config["config"]["kernel_regularizer"]["class_name"] == "L2"
    assert "keras_wm" not in str(config)


def test_detach_names_the_layers_and_leaves_the_weights(key):
    model = nested_model(mark(key))
    attach(model, model.layers[-1], fixed_key(4), margin=1.0)
    before = kernel_of(model)
    assert sorted(detach(model)) == sorted([LAYER, model.layers[-1].name])
    np.testing.assert_array_equal(kernel_of(model), before)
    assert detach(model) == []


def test_detach_after_a_fit_lowers_the_next_loss(key):
    model = dense_model(mark(key, loss="crossentropy", strength=100.0))
    compile_model(model, keras.optimizers.SGD(0.0))
    x, y = data()
    losses = [fit(model, batch_size=64)["loss"][0], model.evaluate(x, y, verbose=0)]
    detach(model)
    assert min(losses) > 100
    losses = [fit(model, batch_size=64)["loss"][0], model.evaluate(x, y, verbose=0)]
    assert max(losses) < 10


def test_detach_during_training_ends_the_penalty(key):
    model = dense_model(mark(key, loss="crossentropy", strength=100.0))
    compile_model(model, keras.optimizers.SGD(0.0))

    class DetachSoon(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                detach(self.model)

    losses = fit(model, 2, [DetachSoon()])["loss"]
    assert losses[0] > 100 > 10 > losses[1]


def test_detach_reaches_a_layer_that_holds_the_regularizer_by_another_name(key):
    layer = NoConfig(64, kernel_regularizer=mark(key, regularizer="l2"), name="it")
    model = keras.Sequential([keras.Input((32,)), layer])
    assert detach(model) == ["it"]
    assert penalty(model) == pytest.approx(0.01 * squared_norm(model, "it"), rel=1e-5)
    assert isinstance(layer.penalty, keras.regularizers.L2)


def test_a_shared_layer_counts_once(key):
    shared = keras.layers.Dense(64, name=LAYER, kernel_regularizer=mark(key))
    left, right = keras.Input((32,)), keras.Input((32,))
    sums = keras.layers.Add()([shared(left), shared(right)])
    model = keras.Model([left, right], sums)
    assert len(model.losses) == 1
    assert detach(model) == [LAYER]
