"""Networks of many kinds, with random weights that hide no mistake."""

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers

from keras_wm.research.hosts.wide_resnet import wide_resnet


def with_weights(model, seed=0):
    """Draws every weight, so that none is 0 or 1 as after initialisation.

    Variances are positive, and gammas lie around 1.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.dtype == "float32":
            values = 0.4 * rng.normal(size=variable.shape)
            if variable.name == "moving_variance":
                values = 0.5 + np.abs(values)
            if variable.name == "gamma":
                values = 1 + 0.5 * values
            variable.assign(values)
    return model


def outputs_of(model, seed=1):
    """Returns a network's outputs for four random inputs.

    The network is called directly: `predict` would trace it, which takes seconds.
    """
    shape = (4, *model.input_shape[1:])
    inputs = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return keras.ops.convert_to_numpy(model(inputs, training=False))


def assert_outputs(network, expected):
    """Asserts that a network has the expected outputs, except for rounding."""
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs_of(network), expected, atol=1e-4 * scale)


def plain():
    """Builds convolutions with biases and normalizations, flattened, and a softmax."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Flatten(),
            layers.Dense(14, activation="tanh"),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )


def separated():
    """Builds depthwise convolutions, a linear bottleneck and a concatenation."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    first = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same")(first)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Conv2D(8, 1)(x))
    x = layers.Add()([x, layers.Conv2D(8, 1)(first)])
    x = layers.Concatenate()([x, first])
    x = layers.Conv2D(12, 3, activation="gelu")(x)
    x = layers.GlobalAveragePooling2D()(x) + layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(4)(x))


def shared():
    """Builds a nested model that is called twice, operations, and an unknown layer."""
    inner = keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(8, 3, padding="same"),
            layers.ReLU(),
            layers.Conv2D(4, 3, padding="same"),
        ],
        name="inner",
    )
    inputs = keras.Input((6, 6, 1))
    x = inner(inner(layers.Conv2D(4, 3, padding="same")(inputs)))
    x = keras.ops.relu(layers.BatchNormalization()(x)) * 2.0
    x = layers.SeparableConv2D(8, 3)(x)
    x = layers.ReLU()(layers.Conv2D(8, 3)(x))
    x = layers.Flatten()(keras.ops.add(x, 0.5))
    return keras.Model(inputs, layers.Dense(3)(x))


def inside():
    """Builds nested models whose inputs are channels, flattened or of unknown size."""
    inner_inputs = [keras.Input((6, 6, 8)), keras.Input((None, None, 8))]
    first, second = (
        layers.Conv2D(8, 3, padding="same")(inner_input) for inner_input in inner_inputs
    )
    two = keras.Model(
        inner_inputs, layers.ReLU()(first + layers.ReLU()(second)), name="two"
    )
    pooling = keras.Sequential(
        [keras.Input((None, None, None)), layers.MaxPooling2D()], name="pooling"
    )
    head = keras.Sequential([layers.Dense(12, "relu"), layers.Dense(3)], name="head")
    inputs = keras.Input((6, 6, 1))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(inputs))
    x = pooling(two([x, layers.ReLU()(layers.Conv2D(8, 1)(inputs))]))
    return keras.Model(inputs, head(layers.Flatten()(x)))


class Subclassed(keras.Model):
    """A model with a dense layer that its config does not describe."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def subclassed(inputs):
    """Builds a subclassed model by calling it on inputs."""
    model = Subclassed()
    model(inputs)
    return model


def attending():
    """Builds layers with several kernels of one name: attention, bidirectional LSTM."""
    inputs = keras.Input((6, 8))
    x = layers.Dense(12, activation="relu")(inputs)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.Bidirectional(layers.LSTM(5))(layers.LayerNormalization()(x))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(64)(x)))
    return keras.Model(inputs, layers.Dense(3)(x))


BUILDERS = {
    "wide residual": lambda: wide_resnet((8, 8, 1), 10, n=1, k=1),
    "plain": plain,
    "separated": separated,
    "shared": shared,
    "inside": inside,
    "attending": attending,
}

_STEPS = {
    "convolution": lambda x: layers.Conv2D(6, 3, padding="same")(x),
    "biasless": lambda x: layers.Conv2D(4, 1, use_bias=False)(x),
    "strided": lambda x: layers.Conv2D(5, 3, strides=2, padding="same")(x),
    "grouped": lambda x: layers.Conv2D(2 * x.shape[-1], 1, groups=x.shape[-1])(x),
    "depthwise": lambda x: layers.DepthwiseConv2D(3, padding="same")(x),
    "multiplied": lambda x: layers.DepthwiseConv2D(1, depth_multiplier=2)(x),
    "transposed": lambda x: layers.Conv2DTranspose(4, 1)(x),
    "normalized": lambda x: layers.BatchNormalization()(x),
    "unscaled": lambda x: layers.BatchNormalization(scale=False)(x),
    "layer normalized": lambda x: layers.LayerNormalization()(x),
    "relu": lambda x: layers.ReLU()(x),
    "clipped": lambda x: layers.ReLU(1.0)(x),
    "tanh": lambda x: layers.Activation("tanh")(x),
    "gelu": lambda x: keras.activations.gelu(x),
    "prelu": lambda x: layers.PReLU()(x),
    "softmax": lambda x: layers.Activation("softmax")(x),
    "residual": lambda x: layers.Add()(
        [x, layers.Conv2D(x.shape[-1], 3, padding="same")(x)]
    ),
    "concatenated": lambda x: layers.Concatenate()([layers.Conv2D(3, 1)(x), x]),
    "product": lambda x: layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1)(x)]),
    "larger": lambda x: layers.Maximum()([x, layers.Conv2D(x.shape[-1], 1)(x)]),
    "shifted": lambda x: x + 1.0,
    "pooled": lambda x: layers.MaxPooling2D(2, padding="same")(x),
    "averaged": lambda x: layers.AveragePooling2D(2, padding="same")(x),
    "dense": lambda x: layers.Dense(5, activation="leaky_relu")(x),
    "padded": lambda x: layers.ZeroPadding2D(1)(x),
}
_ENDS = {
    "flat": lambda x: layers.Flatten()(x),
    "mean": lambda x: layers.GlobalAveragePooling2D()(x),
    "largest": lambda x: layers.GlobalMaxPooling2D()(x),
}


# Random architectures: steps in any order, and an end.
RECIPES = st.tuples(
    st.lists(st.sampled_from(sorted(_STEPS)), min_size=1, max_size=7),
    st.sampled_from(sorted(_ENDS)),
)


def built_from(recipe):
    """Builds the network of a recipe."""
    steps, end = recipe
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    for step in steps:
        x = _STEPS[step](x)
    return with_weights(keras.Model(inputs, layers.Dense(3)(_ENDS[end](x))))
