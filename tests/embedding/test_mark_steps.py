"""Marks without a given strength: BitErrorRate embeds them beside the optimizer."""

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, WatermarkRegularizer
from keras_wm.embedding.mark_steps import MarkSteps
from tests.conftest import fixed_key
from tests.models import (
    UNSEEN_MARGIN,
    Interrupt,
    compile_model,
    dense_model,
    expected_ber,
    expected_margin_loss,
    expected_scores,
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
    "none": lambda: keras.optimizers.SGD(0.0),
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
def test_the_mark_is_embedded_before_the_deadline_and_not_at_once(key):
    mark = WatermarkRegularizer(key)
    model = dense_model(mark, keras.optimizers.SGD(0.05, momentum=0.9))
    history = fit(model, 40, [BitErrorRate()])
    # Half of 320 steps is the end of epoch 20.
    assert history["ber"][19] == 0
    assert history["z_mean"][2] < 0.5 * history["z_mean"][19]


@pytest.mark.study
@pytest.mark.parametrize("strength", [None, 1e-2])
def test_only_a_given_strength_leaves_a_trace_in_the_optimizer(strength, key):
    """Adam divides what the host learns by the root of these mean squares."""
    regularizer = WatermarkRegularizer(key, strength=strength)
    model = dense_model(regularizer, keras.optimizers.Adam(1e-3))
    kernel = kernel_of(model)
    x = np.zeros((64, kernel.shape[0]), "float32")  # no gradient of the task
    rest = {"batch_size": 8, "epochs": 20, "verbose": 0}
    model.fit(x, np.zeros(64), callbacks=[BitErrorRate()], **rest)
    of_kernel = [
        np.abs(keras.ops.convert_to_numpy(variable)).max()
        for variable in model.optimizer.variables
        if tuple(variable.shape) == kernel.shape
    ]
    assert len(of_kernel) == 2
    assert (max(of_kernel) > 0) == (strength is not None)
    assert expected_ber(kernel_of(model), key) == 0


def test_a_given_strength_stays_in_the_loss(key):
    model = dense_model(WatermarkRegularizer(key, strength=1e-4))
    with_mark = number(model.losses[0])
    during = []

    class Penalty(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            during.append(number(self.model.losses[0]))

    fit_eagerly(model, 2, [BitErrorRate(), Penalty()])
    assert find_layer(model).kernel_regularizer.strength == 1e-4
    assert during == pytest.approx([with_mark] * 2, rel=0.2)


def test_the_penalty_is_off_while_the_mark_has_steps_and_on_again_later(key):
    model = dense_model(WatermarkRegularizer(key))
    during = []

    class Penalty(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            during.append(number(self.model.losses[0]))

    before = number(model.losses[0])
    fit_eagerly(model, 2, [BitErrorRate(), Penalty()])
    assert during == [0.0, 0.0]
    assert number(model.losses[0]) == pytest.approx(
        1e-4 * expected_margin_loss(kernel_of(model), key, UNSEEN_MARGIN), rel=1e-4
    )
    assert before > 0


@pytest.mark.study
def test_a_later_training_without_the_callback_gets_the_penalty(key):
    """Its compiled steps were traced while the penalty was off."""
    model = dense_model(WatermarkRegularizer(key), keras.optimizers.SGD(0.0))
    fit(model, 1, [BitErrorRate()])
    kernel = kernel_of(model)
    model.optimizer.learning_rate = 10.0
    x = np.zeros((8, kernel.shape[0]), "float32")  # no gradient of the task
    model.fit(x, np.zeros(8), batch_size=8, epochs=20, verbose=0)
    gained = expected_scores(kernel_of(model), key) - expected_scores(kernel, key)
    assert gained.mean() > 0.01


@pytest.mark.study
def test_the_hosts_constraint_holds_after_each_step_of_the_mark(key):
    model = dense_model(WatermarkRegularizer(key))
    find_layer(model).kernel.constraint = keras.constraints.UnitNorm(axis=0)
    fit(model, 20, [BitErrorRate()])
    kernel = kernel_of(model)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-5)
    assert expected_ber(kernel, key) == 0


@pytest.mark.parametrize("planned", [1, 3, 10, 150, 1000, 10**6, None])
@pytest.mark.parametrize("units", [64, 20_000])
def test_the_steps_reach_the_deadline_and_cost_the_same_per_weight(units, planned, key):
    model = dense_model(WatermarkRegularizer(key), units=units)
    steps = MarkSteps(model)
    # Half of the training, at most 1,000 steps; 150 if its length is unknown.
    deadline = 150 if planned is None else min(planned / 2, 1000)
    moved = []
    for step in range(3000):
        if steps.is_due(step, planned):
            moved.append(step)
            steps._last_step = step
    waits = np.diff([0, *moved])
    assert max(int(deadline), 1) in moved
    assert waits[-1] == (16 if units == 64 else 64)
    assert waits.max() == waits[-1]


class Stop(keras.callbacks.Callback):
    """Stops a training after a number of epochs."""

    def __init__(self, epochs):
        super().__init__()
        self._epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 >= self._epochs


class Record(keras.callbacks.Callback):
    """Keeps the model's training step and its variables while it is trained."""

    def on_epoch_begin(self, epoch, logs=None):
        self.step = self.model.train_function
        self.variables = [variable.path for variable in self.model.variables]


def test_the_model_has_no_variable_more_while_it_is_trained(key):
    record, paths = Record(), []
    for regularizer in (None, WatermarkRegularizer(key)):
        model = dense_model(regularizer)
        fit_eagerly(model, 1, [BitErrorRate(), record] if regularizer else [record])
        paths.append([path.rpartition("/")[2] for path in record.variables])
    assert paths[0] == paths[1]


def test_steps_are_compiled_once_for_all_trainings(key):
    model, record = dense_model(WatermarkRegularizer(key)), Record()
    steps = []
    for with_mark in (True, False, True, False):
        fit_eagerly(model, 1, [BitErrorRate(), record] if with_mark else [record])
        steps.append(record.step)
    assert steps[0] is steps[2] and steps[1] is steps[3]
    assert steps[0] is not steps[1]
    compile_model(model)
    fit_eagerly(model, 1, [BitErrorRate(), record])
    assert record.step is not steps[0]


def test_an_interrupted_training_leaves_the_penalty_to_the_one_after_the_next(key):
    model, record = dense_model(WatermarkRegularizer(key)), Record()
    with pytest.raises(KeyboardInterrupt):
        fit_eagerly(model, 1, [BitErrorRate(), Interrupt(-1)])
    fit_eagerly(model, 1, [BitErrorRate(), record])
    step = record.step
    fit_eagerly(model, 1, [record])
    assert record.step is not step
    assert number(model.losses[0]) > 0


@pytest.mark.study
def test_an_exported_model_holds_no_trace_of_the_mark(key, tmp_path):
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
def test_a_second_training_completes_the_mark(key):
    mark = WatermarkRegularizer(key)
    model = dense_model(mark, keras.optimizers.SGD(0.01))
    fit(model, 20, [BitErrorRate(), Stop(2)])
    assert expected_ber(kernel_of(model), key) > 0.1
    fit(model, 20, [BitErrorRate()])
    assert expected_ber(kernel_of(model), key) == 0


def test_the_config_leaves_the_strength_to_the_next_training(key):
    model = dense_model(WatermarkRegularizer(key))
    fit_eagerly(model, 1, [BitErrorRate()])
    assert find_layer(model).kernel_regularizer.get_config()["strength"] is None
