"""Trainings that would end without a mark: each of them warns, and says why."""

import contextlib
import warnings

import keras
import numpy as np
import pytest

import keras_wm
from keras_wm import BitErrorRate, WatermarkRegularizer, publish
from tests.models import (
    CLASSES,
    FEATURES,
    LAYER,
    SubclassedModel,
    compile_model,
    data,
    dense_model,
    expected_ber,
    expected_scores,
    find_layer,
    fit,
    fit_eagerly,
    kernel_of,
    mark,
    write_mark,
)

pytestmark = pytest.mark.backends


class WithoutPenalties(SubclassedModel):
    """A model whose own loss leaves out `self.losses`, as in Keras's guides."""

    def compute_loss(self, x=None, y=None, y_pred=None, *others, **named):
        labels = keras.ops.one_hot(y, CLASSES)
        return keras.ops.mean(keras.ops.square(y_pred - labels))


class WithPenalty(WithoutPenalties):
    """The same with the line that the warning asks for."""

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs) + keras_wm.penalty(self)


def built(cls, regularizer):
    keras.utils.set_random_seed(1)
    model = cls(regularizer)
    model(data()[0][:1])  # builds it
    return compile_model(model, keras.optimizers.SGD(0.05))


def messages(caught):
    """Returns the texts of the warnings for users."""
    return [str(item.message) for item in caught if item.category is UserWarning]


@contextlib.contextmanager
def no_warning_of_marks():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.study
def test_an_own_loss_that_leaves_out_the_penalties_embeds_the_mark(key):
    model = built(WithoutPenalties, WatermarkRegularizer(key))
    with no_warning_of_marks():
        fit(model, 8, [BitErrorRate()])
    assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.study
def test_an_own_loss_that_leaves_out_a_penalty_with_a_strength_is_warned_of(key):
    model = built(WithoutPenalties, WatermarkRegularizer(key, strength=1e-2))
    with pytest.warns(UserWarning) as caught:
        fit(model, 8, [BitErrorRate()])
    first, last = messages(caught)
    cause = (
        "WithoutPenalties.compute_loss probably leaves out the penalties of the "
        "layers. Add this line where it computes the loss: "
        "loss += keras_wm.penalty(self)"
    )
    assert first.startswith(f"The mark on layer '{LAYER}' is not being embedded")
    assert first.endswith(cause)
    assert "Training has ended, but the mark" in last
    assert last.endswith(cause)


@pytest.mark.study
def test_the_line_of_that_warning_embeds_the_mark(key):
    model = built(WithPenalty, WatermarkRegularizer(key, strength=1e-2))
    with no_warning_of_marks():
        fit(model, 20, [BitErrorRate()])
    assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.study
def test_a_kernel_that_is_not_updated_is_warned_of(key):
    regularizer = WatermarkRegularizer(key, strength=1e-2)
    model = dense_model(regularizer, keras.optimizers.SGD(0.0))
    with pytest.warns(UserWarning, match="has not changed at all: .*rate is 0"):
        fit(model, 3, [BitErrorRate()])


@pytest.mark.study
def test_weights_that_are_set_after_every_step_are_warned_of(key):
    model = dense_model(WatermarkRegularizer(key))
    before = model.get_weights()

    class Reset(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.set_weights(before)

    with pytest.warns(UserWarning) as caught:
        fit(model, 8, [Reset(), BitErrorRate()])
    first, last = messages(caught)
    assert "is not being embedded" in first and "is not complete" in last
    for message in (first, last):
        assert "Something undoes the steps that BitErrorRate makes" in message


def test_an_incomplete_mark_is_warned_of_at_the_end(key):
    model = dense_model(mark(key, strength=1e-4))
    with pytest.warns(UserWarning) as caught:
        fit_eagerly(model, 1, [BitErrorRate()])
    (message,) = messages(caught)
    assert "Training has ended, but the mark on layer 'wide' is not complete" in message
    kernel = kernel_of(model)
    assert f"bit error rate {expected_ber(kernel, key):.2g}" in message
    assert f"smallest score {expected_scores(kernel, key).min():.2g}" in message
    assert "'not found'" in message


def test_a_complete_mark_is_not_warned_of(key):
    model = dense_model(mark(key))
    write_mark(model, key)
    with no_warning_of_marks():
        history = fit_eagerly(model, 1, [BitErrorRate()])
    assert history["ber"] == [0.0]


@pytest.mark.study
def test_the_figures_are_those_of_the_averages_that_fit_leaves(key):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.98)
    model = dense_model(mark(key), optimizer)
    with warnings.catch_warnings(record=True):
        history = fit(model, 3, [BitErrorRate()])
    left = expected_scores(kernel_of(model), key)
    assert history["z_mean"][-1] == pytest.approx(left.mean(), rel=1e-4)
    assert history["unaveraged_z_min"][-1] > history["z_min"][-1]


@pytest.mark.study
@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_swapped_averages_are_measured_once(key, swap_on_epoch):
    # SwapEMAWeights puts the averages into the model at the end of each epoch, or while
    # the model is validated.
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    model = dense_model(mark(key), optimizer)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch)
    averages = []

    class Recorded(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if swap_on_epoch:
                averages.append(kernel_of(self.model))

    history = fit(model, 3, [swap, BitErrorRate(), Recorded()], validation_data=data())
    left = expected_scores(kernel_of(model), key).mean()
    assert history["z_mean"][-1] == pytest.approx(left, rel=1e-4)
    expected = [expected_scores(average, key).mean() for average in averages]
    np.testing.assert_allclose(history["z_mean"][: len(expected)], expected, rtol=1e-4)


@pytest.mark.study
def test_averages_that_the_mark_has_not_reached_are_warned_of(key):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.999)
    model = dense_model(mark(key), optimizer)
    remedy = "Compile the model without use_ema, and call fit again"
    with pytest.warns(UserWarning, match=f"not complete.*{remedy}"):
        history = fit(model, 4, [BitErrorRate()])
    assert history["unaveraged_ber"][-1] == 0
    assert expected_ber(kernel_of(model), key) > 0
    # The remedy.
    compile_model(model, keras.optimizers.SGD(0.1))
    with no_warning_of_marks():
        fit(model, 4, [BitErrorRate()])
    assert expected_ber(kernel_of(model), key) == 0


class Hidden(keras.layers.Layer):
    """A layer with a sublayer in a place that Keras does not save."""

    def __init__(self, regularizer):
        super().__init__()
        dense = keras.layers.Dense(64, kernel_regularizer=regularizer, name=LAYER)
        self._layers.append(dense)

    def call(self, inputs):
        return self._layers[0](inputs)


@pytest.fixture
def hidden_model(key):
    """A model with a complete mark that no file will contain."""
    model = keras.Sequential([keras.Input((FEATURES,)), Hidden(mark(key))])
    write_mark(model.layers[0], key)
    return model


def test_a_file_without_the_mark_is_refused(hidden_model, tmp_path):
    with pytest.raises(ValueError, match=r"'wide'.*is not in the file.*not save"):
        publish(hidden_model, tmp_path / "a.weights.h5")
    assert not list(tmp_path.iterdir())


def test_a_file_without_the_mark_is_written_on_request(hidden_model, key, tmp_path):
    with pytest.warns(UserWarning, match="is not in the file"):
        publish(hidden_model, tmp_path / "a.weights.h5", missing="warn")
    assert keras_wm.verify(tmp_path / "a.weights.h5", key).verdict == "not found"


def test_an_incomplete_mark_is_warned_of_when_it_is_published(key, tmp_path):
    model = dense_model(mark(key), compiled=False)
    with pytest.warns(UserWarning, match="written without a mark that can be proven"):
        publish(model, tmp_path / "a.keras")


def test_an_unknown_reaction_is_refused(key, tmp_path):
    with pytest.raises(ValueError, match="'refuse', 'warn'"):
        publish(dense_model(mark(key)), tmp_path / "a.keras", missing="ignore")


@pytest.mark.study
def test_early_stopping_that_restores_an_unmarked_epoch_is_warned_of(key):
    model = dense_model(mark(key, strength=1e-2))
    before = model.get_weights()

    class Restore(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            self.model.set_weights(before)

    with pytest.warns(UserWarning, match="Training has ended, but the mark"):
        history = fit_eagerly(model, 20, [BitErrorRate(), Restore()])
    assert history["ber"][-1] == 0
    assert np.array_equal(find_layer(model).get_weights()[0], before[0])
