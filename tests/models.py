"""Small models and data that several tests share, and the scheme in NumPy."""

import contextlib

import keras
import numpy as np
import pytest

from keras_wm import WatermarkRegularizer, keys
from tests.conftest import fixed_key
from tests.marked_model import with_mark

FEATURES, UNITS, CLASSES = 32, 64, 4
LAYER = "wide"
# The largest margin that the wide kernel can hold unseen with 32 bits.
UNSEEN_MARGIN = 0.17 * np.sqrt(FEATURES * UNITS / 32)
# `fit` completes a mark within this number of epochs.
MARKING_EPOCHS = 2


def data(samples=64):
    """Returns inputs and labels of a small classification task."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(samples, FEATURES)).astype("float32")
    return x, rng.integers(0, CLASSES, samples)


def mark(key=None, **arguments):
    """Returns a regularizer that is strong enough for `MARKING_EPOCHS`."""
    return WatermarkRegularizer(key or fixed_key(), **{"strength": 1e-2, **arguments})


@contextlib.contextmanager
def key_not_found(commitment=""):
    """Hides all live keys, as in a process that has not loaded them."""
    rebuilt = pytest.warns(UserWarning, match=f"rebuilt without its key.*{commitment}")
    with keys(fixed_key(secret=b"\x05" * 32)), rebuilt:
        yield


def dense_model(
    regularizer=None, optimizer=None, compiled=True, units=UNITS, **arguments
):
    """Returns a model of two dense layers; the first one can hold 32 bits."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(
                units,
                activation="relu",
                kernel_regularizer=regularizer,
                name=LAYER,
                **arguments,
            ),
            keras.layers.Dense(CLASSES, name="logits"),
        ],
        name="host",
    )
    return compile_model(model, optimizer) if compiled else model


def functional_model(regularizer=None):
    """Returns the same as a Functional model with a branch."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((FEATURES,))
    wide = keras.layers.Dense(
        UNITS, activation="relu", kernel_regularizer=regularizer, name=LAYER
    )(inputs)
    both = keras.layers.Concatenate()([wide, inputs])
    return compile_model(
        keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(both))
    )


@keras.saving.register_keras_serializable(package="tests")
class SubclassedModel(keras.Model):
    """The same as a subclassed model, which is built in its first call."""

    def __init__(self, regularizer=None, **arguments):
        super().__init__(**arguments)
        self.wide = keras.layers.Dense(
            UNITS, activation="relu", kernel_regularizer=regularizer, name=LAYER
        )
        self.logits = keras.layers.Dense(CLASSES)

    def call(self, inputs):
        return self.logits(self.wide(inputs))

    def get_config(self):
        return {"name": self.name}


def subclassed_model(regularizer=None, built=True):
    """Returns a compiled `SubclassedModel`."""
    keras.utils.set_random_seed(1)
    model = SubclassedModel(regularizer)
    if built:
        model(data()[0][:1])
    return compile_model(model)


def nested_model(regularizer=None):
    """Returns a model with the wide layer in a model in a model."""
    keras.utils.set_random_seed(1)
    wide = keras.layers.Dense(
        UNITS, activation="relu", kernel_regularizer=regularizer, name=LAYER
    )
    inner = keras.Sequential([keras.Input((FEATURES,)), wide], name="inner")
    inputs = keras.Input((FEATURES,))
    middle = keras.Model(inputs, inner(inputs), name="middle")
    return compile_model(
        keras.Sequential(
            [keras.Input((FEATURES,)), middle, keras.layers.Dense(CLASSES)]
        )
    )


# One model of each kind that Keras has.
MODELS = {
    "Sequential": dense_model,
    "Functional": functional_model,
    "subclassed": subclassed_model,
    "nested": nested_model,
}


class NoConfig(keras.layers.Layer):
    """A custom layer without `get_config`, with its regularizer as `penalty`."""

    def __init__(self, units, kernel_regularizer=None, **arguments):
        super().__init__(**arguments)
        self.units, self.penalty = units, kernel_regularizer

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), regularizer=self.penalty
        )

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel)


def lstm(regularizer=None):
    """Returns a recurrent layer; its kernels are in a cell inside it."""
    return keras.layers.LSTM(12, kernel_regularizer=regularizer, name="it")


def time_distributed(regularizer=None):
    """Returns a wrapper of a dense layer."""
    inner = keras.layers.Dense(24, kernel_regularizer=regularizer, name="inner")
    return keras.layers.TimeDistributed(inner, name="it")


def attention(regularizer=None):
    """Returns self-attention with four kernels of (M, L) = (40, 20) or (20, 40)."""
    layer = keras.layers.MultiHeadAttention(
        2, 20, kernel_regularizer=regularizer, name="it"
    )
    return lambda x: layer(x, x)


SEQUENCE_LAYERS = {"LSTM": lstm, "TimeDistributed": time_distributed, "MHA": attention}


def sequence_model(make_layer, regularizer=None):
    """Returns a model of sequences with one of the `SEQUENCE_LAYERS`."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((3, 20))
    x = make_layer(regularizer)(inputs)
    if len(x.shape) == 3:
        x = keras.layers.GlobalAveragePooling1D()(x)
    return compile_model(keras.Model(inputs, keras.layers.Dense(2)(x)), loss="mse")


def compile_model(model, optimizer=None, loss=None, **arguments):
    """Compiles a model for the task of `data`.

    The default optimizer is plain SGD: tracing a step of Adam takes twice as long.
    """
    if keras.backend.backend() == "tensorflow":
        # XLA would take seconds per model.
        arguments.setdefault("jit_compile", False)
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **arguments)
    return model


def fit(model, epochs=1, callbacks=(), **arguments):
    """Trains on `data`, 8 steps per epoch, and returns the history.

    The first call traces the training step, which takes about a second.
    """
    x, y = data()
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(
        x, y, epochs=epochs, callbacks=list(callbacks), **arguments
    ).history


def outputs(model, x):
    """Returns the outputs of a model as a NumPy array, on any backend."""
    return keras.ops.convert_to_numpy(model(x))


def fit_eagerly(model, epochs=1, callbacks=(), **arguments):
    """Trains without tracing, one step per epoch, and returns the history.

    This is faster than `fit` for a few steps.
    """
    model.run_eagerly = True
    return fit(model, epochs, callbacks, batch_size=64, **arguments)


class Interrupt(keras.callbacks.Callback):
    """Ends a training after an epoch, as a user does."""

    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch > self.last:
            raise KeyboardInterrupt


def write_mark(model, key, strength=1.0):
    """Writes a mark into the wide kernel of a model without training."""
    find_layer(model).kernel.assign(with_mark(kernel_of(model), key, strength))


def find_layer(model, name=LAYER):
    """Returns a layer by its name, also one in a nested model."""
    layers = model._flatten_layers()
    return next(layer for layer in layers if layer.name == name)


def kernel_of(model, name=LAYER):
    """Returns the kernel of a layer as an array."""
    return keras.ops.convert_to_numpy(find_layer(model, name).kernel)


def penalty(model):
    """Returns the sum that the regularizers add to a model's loss."""
    return sum(number(loss) for loss in model.losses)


def optimizer_variables(model):
    """Returns the optimizer's state as arrays."""
    variables = model.optimizer.variables
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


# The scheme from its equations, bit by bit, in double precision.


def signed_outputs(kernel, key, divided=True):
    """Returns s_j y_j / spread_j and |u_j| of every bit; z is their quotient.

    Without `divided`, it returns s_j y_j and |u_j|.
    """
    flat = np.asarray(kernel, np.float64).reshape(-1, np.shape(kernel)[-1])
    size = len(flat)
    mark = key.for_shape(flat.shape)
    x, length = mark.matrix, flat.size // key.bits
    signed, norms = [], []
    for j in range(key.bits):
        if key.recipient:
            u = flat.ravel()[j * length : (j + 1) * length]
        else:
            u = flat @ mark.filter_weights[j % key.groups]
        spread = (
            not divided
            or {
                "random": 1.0,
                "direct": np.sqrt(1 / size),
                "diff": np.sqrt(2 / size),
                "sums": np.sqrt(2),
                "explicit": np.linalg.norm(x[j]) / np.sqrt(size),
            }[key.projection]
        )
        signed.append(
            (2.0 * mark.message[j] - 1.0) * (x[j] @ u) / (spread if divided else 1)
        )
        norms.append(np.linalg.norm(u))
    return np.array(signed), np.array(norms)


def expected_ber(kernel, key):
    """Returns the share of bits whose score is not positive."""
    signed, _ = signed_outputs(kernel, key)
    return float(np.mean(signed <= 0))


def expected_scores(kernel, key):
    """Returns the scores z."""
    signed, norms = signed_outputs(kernel, key)
    return signed / norms


def expected_margin_loss(kernel, key, margin):
    """Returns sum_j relu(m - z_j)^2."""
    return np.sum(np.maximum(0.0, margin - expected_scores(kernel, key)) ** 2)


def expected_crossentropy(kernel, key):
    """Returns sum_j BCE(sigmoid(y_j), b_j)."""
    signed, _ = signed_outputs(kernel, key, divided=False)
    return np.sum(np.logaddexp(0.0, -signed))


def number(tensor):
    """Returns a tensor's value as a float."""
    return float(keras.ops.convert_to_numpy(tensor))


def value_and_gradient(function, kernel, dtype="float32"):
    """Returns a function's value and its gradient from the backend."""
    start = keras.ops.cast(keras.ops.convert_to_tensor(kernel), dtype)
    value, gradient = _differentiated(function)(start)
    as_array = keras.ops.convert_to_numpy
    return number(value), np.asarray(as_array(gradient), np.float64)


def compiled_gradient(function):
    """Returns a function of an array that gives a function's gradient there.

    It is traced once, and then faster than `value_and_gradient`.
    """
    differentiated, backend = _differentiated(function), keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        differentiated = tf.function(differentiated)
    elif backend == "jax":
        import jax

        differentiated = jax.jit(differentiated)

    def gradient(kernel):
        _, tensor = differentiated(keras.ops.convert_to_tensor(kernel))
        return keras.ops.convert_to_numpy(tensor)

    return gradient


def _differentiated(function):
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.value_and_grad(function)

    def on_tensorflow(start):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(start)
            value = function(start)
        return value, tape.gradient(value, start)

    def on_torch(start):
        start = start.detach().requires_grad_()
        value = function(start)
        value.backward()
        return value, start.grad

    return {"tensorflow": on_tensorflow, "torch": on_torch}[backend]


def most_bits(shape, groups=64):
    """Returns how many random bits a kernel holds with keyed filters (Cover 1965)."""
    size, count = np.prod(shape[:-1]), shape[-1]
    # The signs of an even number of filters are balanced, and do not read the mean.
    directions = min(groups, count if count % 2 else count - 1)
    return 2 * size * directions - 1
