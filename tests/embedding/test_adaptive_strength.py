"""The default strength: BitErrorRate adjusts it, whatever the optimizer is."""

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, WatermarkRegularizer, attach, detach
from tests.conftest import fixed_key
from tests.models import (
    LAYER,
    Interrupt,
    dense_model,
    expected_ber,
    find_layer,
    fit,
    fit_eagerly,
    kernel_of,
    number,
)

pytestmark = pytest.mark.backends

OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.01),
    "Adam": lambda: keras.optimizers.Adam(1e-3),
    "Lion": lambda: keras.optimizers.Lion(1e-3),
    "accumulation": lambda: keras.optimizers.SGD(
        0.05, momentum=0.9, gradient_accumulation_steps=4
    ),
}


def trained(optimizer, strength=None, epochs=20):
    """Returns a model of 8 steps per epoch, with its mark trained."""
    mark = WatermarkRegularizer(fixed_key(), strength=strength)
    model = dense_model(mark, optimizer)
    fit(model, epochs, [BitErrorRate()])
    return model


@pytest.mark.study
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_embeds_the_mark_in_160_steps(name, key):
    model = trained(OPTIMIZERS[name]())
    assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.study
def test_the_default_strength_alone_would_not(key):
    # The negative control of the test above.
    with pytest.warns(UserWarning, match=r"strength of 0\.0001 is probably too small"):
        model = trained(OPTIMIZERS["SGD"](), strength=1e-4)
    assert expected_ber(kernel_of(model), key) > 0.1
    assert find_layer(model).kernel_regularizer.strength == 1e-4


@pytest.mark.study
def test_the_strength_is_only_raised_where_that_helps(key):
    # Both are too slow for a mark in 160 steps. But the steps of Lion have a fixed
    # size, and those of SGD grow with the strength.
    slow = keras.optimizers.Lion(1e-5), keras.optimizers.SGD(1e-4)
    lion, sgd = (
        find_layer(trained(optimizer)).kernel_regularizer.strength for optimizer in slow
    )
    assert 1e-4 <= lion < 0.05 < sgd


@pytest.mark.study
def test_the_mark_is_embedded_before_the_deadline_and_not_at_once(key):
    mark = WatermarkRegularizer(key)
    model = dense_model(mark, keras.optimizers.SGD(0.05, momentum=0.9))
    history = fit(model, 40, [BitErrorRate()])
    # Half of 320 steps is the end of epoch 20.
    assert history["ber"][19] == 0
    assert history["z_mean"][2] < 0.5 * history["z_mean"][19]


def test_the_strength_changes_the_gradient_and_not_the_value(key):
    mark = WatermarkRegularizer(key)
    model = dense_model(mark, keras.optimizers.SGD(1.0))
    before, value = kernel_of(model), number(model.losses[0])
    callback = BitErrorRate()
    callback.set_model(model)
    callback.set_params({"epochs": 1, "steps": 1})
    callback.on_train_begin()
    moved = {}
    for strength in (1e-4, 3e-4):
        mark.schedule.set(strength, pauses=False)
        find_layer(model).kernel.assign(before)
        assert number(model.losses[0]) == pytest.approx(value, rel=1e-6)
        x = np.zeros((8, before.shape[0]), "float32")  # no gradient of the task
        model.run_eagerly = True
        model.fit(x, np.zeros(8), batch_size=8, verbose=0)
        moved[strength] = kernel_of(model) - before
    np.testing.assert_allclose(moved[3e-4], 3 * moved[1e-4], rtol=1e-3, atol=1e-7)
    assert np.abs(moved[1e-4]).max() > 0


def test_a_given_strength_is_never_adjusted(key):
    model = dense_model(WatermarkRegularizer(key, strength=1e-4))
    fit_eagerly(model, 2, [BitErrorRate()])
    mark = find_layer(model).kernel_regularizer
    assert mark.strength == 1e-4
    assert mark.schedule is None


class Count(keras.callbacks.Callback):
    """Counts the model's variables and its weights while it is trained."""

    def on_epoch_begin(self, epoch, logs=None):
        self.variables = len(self.model.variables)
        self.weights = len(self.model.weights), len(self.model.get_weights())
        self.parameters = self.model.count_params()


def test_the_strength_is_not_a_weight_of_the_model(key, tmp_path):
    unmarked, model = dense_model(), dense_model(WatermarkRegularizer(key))
    count = Count()
    fit_eagerly(model, 1, [BitErrorRate(), count])
    assert count.variables > len(unmarked.variables)
    assert count.weights == (len(unmarked.weights), len(unmarked.weights))
    assert count.parameters == unmarked.count_params()
    model.save_weights(tmp_path / "a.weights.h5")
    unmarked.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(kernel_of(unmarked), kernel_of(model))


def test_nothing_is_left_of_the_strength_after_training(key):
    model = dense_model(WatermarkRegularizer(key))
    paths = [variable.path for variable in model.variables]
    for _ in range(2):
        fit_eagerly(model, 1, [BitErrorRate()])
        assert [variable.path for variable in model.variables] == paths


@pytest.mark.study
def test_an_exported_model_holds_no_trace_of_the_strength(key, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends export through TensorFlow or a compiler")
    model = dense_model(WatermarkRegularizer(key))
    fit(model, 1, [BitErrorRate()])
    model.export(tmp_path / "exported", verbose=False)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 2
    for path in files:
        assert b"watermark" not in path.read_bytes().lower(), path.name


@pytest.mark.study
def test_one_regularizer_marks_one_model_after_another(key):
    mark = WatermarkRegularizer(key)
    for _ in range(2):
        model = dense_model(mark, keras.optimizers.SGD(0.01))
        fit(model, 20, [BitErrorRate()])
        assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.study
def test_a_second_training_continues_to_adjust_the_compiled_steps(key):
    mark = WatermarkRegularizer(key)
    model = dense_model(mark, keras.optimizers.SGD(0.01))
    fit(model, 2, [BitErrorRate()])
    assert expected_ber(kernel_of(model), key) > 0.1
    fit(model, 20, [BitErrorRate()])
    assert expected_ber(kernel_of(model), key) == 0


def test_detach_removes_the_strength_of_an_interrupted_training(key):
    model = dense_model()
    count = len(model.variables)
    attach(model, LAYER, key)
    with pytest.raises(KeyboardInterrupt):
        fit_eagerly(model, 1, [BitErrorRate(), Interrupt(-1)])
    assert len(model.variables) > count
    detach(model)
    assert len(model.variables) == count


def test_the_config_leaves_the_strength_to_the_next_training(key):
    model = dense_model(WatermarkRegularizer(key))
    fit_eagerly(model, 1, [BitErrorRate()])
    assert find_layer(model).kernel_regularizer.get_config()["strength"] is None
