"""Small models and data that several tests share, and the scheme in NumPy."""

import keras
import numpy as np

from keras_wm import WatermarkRegularizer
from tests.conftest import fixed_key

FEATURES, UNITS, CLASSES = 32, 64, 4
LAYER = "wide"


def data(samples=64):
    """Inputs and labels of a small classification task."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(samples, FEATURES)).astype("float32")
    return x, rng.integers(0, CLASSES, samples)


def mark(key=None, **arguments):
    """A regularizer strong enough to embed 32 bits within a hundred small steps."""
    return WatermarkRegularizer(key or fixed_key(), **{"strength": 1e-2, **arguments})


def dense_model(regularizer=None, optimizer="adam", compiled=True, **arguments):
    """Two dense layers, the first of which can hold 32 bits."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(
                UNITS,
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
    """The same as a Functional model with a branch."""
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
    """The same as a subclassed model, which is built at its first call."""

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
    """A compiled `SubclassedModel`."""
    keras.utils.set_random_seed(1)
    model = SubclassedModel(regularizer)
    if built:
        model(data()[0][:1])
    return compile_model(model)


def nested_model(regularizer=None):
    """A model with the wide layer in a model in a model."""
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


def compile_model(model, optimizer="adam", loss=None, **arguments):
    """Compiles for the task of `data`."""
    if keras.backend.backend() == "tensorflow":
        # XLA would cost seconds a model.
        arguments.setdefault("jit_compile", False)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, **arguments)
    return model


def fit(model, epochs=1, callbacks=(), **arguments):
    """Trains on `data`, 16 steps an epoch; returns the history."""
    x, y = data()
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0, **arguments}
    return model.fit(
        x, y, epochs=epochs, callbacks=list(callbacks), **arguments
    ).history


def find_layer(model, name=LAYER):
    """A layer by its name, however deep in the model."""
    layers = model._flatten_layers()
    return next(layer for layer in layers if layer.name == name)


def kernel_of(model, name=LAYER):
    """The kernel of a layer as an array."""
    return keras.ops.convert_to_numpy(find_layer(model, name).kernel)


def optimizer_variables(model):
    """The optimizer's state as arrays."""
    variables = model.optimizer.variables
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


# The scheme from its equations, bit by bit, in double precision.


def readings(kernel, key):
    """s_j y_j / spread_j and |u_j| of every bit: z is their quotient."""
    flat = np.asarray(kernel, np.float64).reshape(-1, np.shape(kernel)[-1])
    size, count = flat.shape
    x, a = key.matrix(size), key.filter_weights(count)
    signed, norms = [], []
    for j in range(key.bits):
        u = flat @ a[j % len(a)]
        spread = {
            "random": 1.0,
            "direct": np.sqrt(1 / size),
            "diff": np.sqrt(2 / size),
            "explicit": np.linalg.norm(x[j]) / np.sqrt(size),
        }[key.projection]
        signed.append((2.0 * key.message[j] - 1.0) * (x[j] @ u) / spread)
        norms.append(np.linalg.norm(u))
    return np.array(signed), np.array(norms)


def expected_ber(kernel, key):
    """The share of bits whose score is not positive."""
    signed, _ = readings(kernel, key)
    return float(np.mean(signed <= 0))


def expected_scores(kernel, key):
    """z, the scores."""
    signed, norms = readings(kernel, key)
    return signed / norms


def expected_margin_loss(kernel, key, margin):
    """sum_j relu(m - z_j)^2."""
    return np.sum(np.maximum(0.0, margin - expected_scores(kernel, key)) ** 2)


def expected_crossentropy(kernel, key):
    """sum_j BCE(sigmoid(y_j), b_j)."""
    flat = np.asarray(kernel, np.float64).reshape(-1, np.shape(kernel)[-1])
    x, a = key.matrix(len(flat)), key.filter_weights(flat.shape[1])
    y = np.array([x[j] @ flat @ a[j % len(a)] for j in range(key.bits)])
    return np.sum(np.logaddexp(0.0, y) - key.message * y)


def number(tensor):
    """A tensor's value, off any tape."""
    return float(keras.ops.convert_to_numpy(tensor))


def value_and_gradient(function, kernel, dtype="float32"):
    """A function's value and gradient with the backend's own differentiation."""
    backend = keras.backend.backend()
    start = keras.ops.cast(keras.ops.convert_to_tensor(kernel), dtype)
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(start)
            value = function(start)
        gradient = tape.gradient(value, start)
    elif backend == "jax":
        import jax

        value, gradient = jax.value_and_grad(function)(start)
    else:
        start = start.detach().requires_grad_()
        value = function(start)
        value.backward()
        gradient = start.grad
    as_array = keras.ops.convert_to_numpy
    return number(value), np.asarray(as_array(gradient), np.float64)


def most_bits(shape, groups=16):
    """How many random bits a kernel holds by keyed filters (Cover 1965)."""
    size, count = np.prod(shape[:-1]), shape[-1]
    # Of an even number of filters, the mean is not read.
    directions = min(groups, count if count % 2 else count - 1)
    return 2 * size * directions - 1
