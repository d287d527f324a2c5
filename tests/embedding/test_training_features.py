"""Ways in which Keras trains: each of them trains the mark, and as `fit` does."""

import copy

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, publish, verify
from tests.models import (
    CLASSES,
    FEATURES,
    LAYER,
    UNITS,
    Interrupt,
    compile_model,
    data,
    dense_model,
    expected_ber,
    fit,
    kernel_of,
    mark,
)

pytestmark = [pytest.mark.backends, pytest.mark.study]

EPOCHS, BATCH = 4, 8
FIGURES = ("loss", "ber", "z_min", "z_mean", "embedding_loss")


def marked_model(key, optimizer=None, strength=6e-3, **arguments):
    """Returns a marked model that is compiled with some arguments."""
    model = dense_model(mark(key, strength=strength), compiled=False)
    return compile_model(model, optimizer, **arguments)


def assert_marked(model, history, key):
    assert history["ber"][-1] == expected_ber(kernel_of(model), key) == 0


@pytest.fixture(scope="module")
def plain():
    """The history of `fit` with arrays, and the kernel that it leaves behind."""
    from tests.conftest import fixed_key

    model = marked_model(fixed_key())
    assert expected_ber(kernel_of(model), fixed_key()) > 0.3
    history = fit(model, EPOCHS, [BitErrorRate()])
    assert_marked(model, history, fixed_key())
    return history, kernel_of(model)


def assert_same(history, model, plain, rtol=1e-5):
    expected, kernel = plain
    for figure in FIGURES:
        np.testing.assert_allclose(history[figure], expected[figure], rtol, 1e-5)
    np.testing.assert_allclose(kernel_of(model), kernel, rtol, 1e-5)


class Batches(keras.utils.PyDataset):
    """The batches of `data` as a `PyDataset`."""

    def __len__(self):
        return len(data()[0]) // BATCH

    def __getitem__(self, number):
        part = slice(number * BATCH, (number + 1) * BATCH)
        return tuple(array[part] for array in data())


def tf_data():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(data()).batch(BATCH)


@pytest.mark.parametrize("source", [Batches, tf_data])
def test_a_stream_of_batches_trains_the_mark_as_arrays_do(key, plain, source):
    model = marked_model(key)
    callbacks = [BitErrorRate()]
    history = model.fit(
        source(), epochs=EPOCHS, verbose=0, shuffle=False, callbacks=callbacks
    ).history
    assert_same(history, model, plain)


@pytest.mark.parametrize(
    ("argument", "value"), [("steps_per_execution", 4), ("jit_compile", True)]
)
def test_every_way_to_compile_a_step_trains_the_same_mark(key, plain, argument, value):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras runs single steps on torch, and Inductor needs a compiler")
    model = marked_model(key, **{argument: value})
    history = fit(model, EPOCHS, [BitErrorRate()])
    assert_same(history, model, plain, 1e-4 if argument == "jit_compile" else 1e-5)


class WithoutTraining(keras.layers.Dense):
    """A dense layer whose call has no keyword arguments.

    On TensorFlow, Keras 3.15 cannot rematerialize a layer that has.
    """

    def call(self, inputs):
        return super().call(inputs)


def test_rematerialized_layers_train_the_same_mark(key, plain):
    with keras.RematScope(mode="full"):
        wide = WithoutTraining(
            UNITS, "relu", kernel_regularizer=mark(key, strength=6e-3), name=LAYER
        )
    layers = [keras.Input((FEATURES,)), wide, keras.layers.Dense(CLASSES)]
    model = keras.Sequential(layers)
    model.set_weights(dense_model(compiled=False).get_weights())
    history = fit(compile_model(model), EPOCHS, [BitErrorRate()])
    assert_same(history, model, plain)


def backup(folder):
    return [BitErrorRate(), keras.callbacks.BackupAndRestore(folder / "backup")]


def test_a_training_that_was_interrupted_resumes_with_its_mark(key, plain, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(marked_model(key), EPOCHS, [*backup(tmp_path), Interrupt(1)])
    model = marked_model(key)
    history = fit(model, EPOCHS, backup(tmp_path))
    assert len(history["ber"]) == EPOCHS - 2
    expected, kernel = plain
    rest = {figure: expected[figure][2:] for figure in FIGURES}
    assert_same(history, model, (rest, kernel))


def slow_model(key, **arguments):
    """Returns a model in which the penalty alone would embed no mark."""
    return marked_model(key, keras.optimizers.SGD(0.01), None, **arguments)


def test_a_mark_has_steps_between_steps_that_are_executed_together(key):
    if keras.backend.backend() == "torch":
        pytest.skip("Keras runs single steps on torch")
    model = slow_model(key, steps_per_execution=4)
    assert_marked(model, fit(model, 20, [BitErrorRate()]), key)


def test_a_mark_has_steps_again_after_an_interruption(key, tmp_path):
    first = slow_model(key)
    with pytest.raises(KeyboardInterrupt):
        fit(first, 20, [*backup(tmp_path), Interrupt(1)])
    assert expected_ber(kernel_of(first), key) > 0.1
    model = slow_model(key)
    history = fit(model, 20, backup(tmp_path))
    assert len(history["ber"]) == 20 - 2
    assert_marked(model, history, key)


def test_a_deep_copy_of_a_model_trains_the_same_mark(key, plain):
    model = marked_model(key)
    clone = copy.deepcopy(model)
    untouched = kernel_of(model)
    history = fit(compile_model(clone), EPOCHS, [BitErrorRate()])
    assert_same(history, clone, plain)
    np.testing.assert_array_equal(kernel_of(model), untouched)


class Tied(keras.layers.Layer):
    """An output layer that uses the transposed kernel of another layer."""

    def __init__(self, other, **arguments):
        super().__init__(**arguments)
        self.other = other

    def call(self, inputs):
        return keras.ops.matmul(inputs, keras.ops.transpose(self.other.kernel))


def test_tied_weights_carry_one_mark(key):
    keras.utils.set_random_seed(1)
    wide = keras.layers.Dense(UNITS, kernel_regularizer=mark(key), name=LAYER)
    inputs = keras.Input((FEATURES,))
    decoded = Tied(wide)(keras.layers.Activation("tanh")(wide(inputs)))
    model = compile_model(keras.Model(inputs, decoded), loss="mse")
    # The kernel is used twice and gets its penalty once.
    assert len(model.losses) == 1
    x, _ = data()
    callbacks = [BitErrorRate()]
    before = expected_ber(kernel_of(model), key)
    arguments = {"epochs": EPOCHS, "verbose": 0, "callbacks": callbacks}
    history = model.fit(x, x, BATCH, **arguments).history
    assert before > 0.3
    assert_marked(model, history, key)
    assert "ber/wide" not in history


def test_averaged_weights_carry_the_mark(key):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8)
    model = marked_model(key, optimizer, strength=1e-2)
    before = expected_ber(kernel_of(model), key)
    fit(model, 6, [BitErrorRate()])
    # `fit` leaves the averages behind.
    assert before > 0.3
    assert expected_ber(kernel_of(model), key) == 0


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_mark_stays_when_the_trained_model_is_quantized(key, mode, tmp_path):
    model = marked_model(key)
    assert not verify(model, key).marked
    fit(model, EPOCHS)
    before = verify(model, key).detection
    model.quantize(mode)
    after = verify(publish(model, tmp_path / "quantized.keras"), key).detection
    assert after.ber == before.ber == 0
    assert max(after.log10_p, before.log10_p) < -8
    # The change of a score by rounding, in standard deviations.
    largest = {"int8": 0.02, "int4": 0.3}[mode]
    np.testing.assert_allclose(after.z, before.z, atol=largest)


class FakeQuantized(keras.layers.Layer):
    """A dense layer that is trained for int8: it computes with rounded weights."""

    def __init__(self, units, kernel_regularizer=None, **arguments):
        super().__init__(**arguments)
        self.units = units
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            regularizer=self.kernel_regularizer,
            name="kernel",
        )

    def call(self, inputs):
        kernel = keras.ops.convert_to_tensor(self.kernel)
        step = keras.ops.max(keras.ops.abs(kernel), axis=0, keepdims=True) / 127
        rounded = keras.ops.round(kernel / step) * step
        # The gradient passes the rounding unchanged.
        rounded = kernel + keras.ops.stop_gradient(rounded - kernel)
        return keras.ops.matmul(inputs, rounded)


def test_training_for_quantization_embeds_a_mark_that_rounding_keeps(key):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((FEATURES,))
    wide = FakeQuantized(UNITS, mark(key), name=LAYER)(inputs)
    model = compile_model(keras.Model(inputs, keras.layers.Dense(CLASSES)(wide)))
    before = expected_ber(kernel_of(model), key)
    history = fit(model, EPOCHS, [BitErrorRate()])
    assert before > 0.3
    assert_marked(model, history, key)
    kernel = kernel_of(model)
    step = np.abs(kernel).max(axis=0) / 127
    assert expected_ber(np.round(kernel / step) * step, key) == 0
