"""Text transformer, in the style of Keras's "Text classification with Transformer".

The line goes into the feed-forward network of a block, which is inside a layer of the
user's own. The mark is found there, however deep it is nested. The embedding is larger,
but a word that is not in the texts has weights that only the mark moves.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import reviews
from _report import KEY, report
from keras import layers, ops

import keras_wm


class TransformerBlock(layers.Layer):
    """Attention and a feed-forward network, each with a skip connection."""

    def __init__(self, width, heads, hidden, rate=0.1, mark=False):
        super().__init__()
        regularizer = keras_wm.WatermarkRegularizer(KEY) if mark else None
        self.attention = layers.MultiHeadAttention(heads, width)
        self.feed_forward = keras.Sequential(
            [
                layers.Dense(hidden, activation="relu", kernel_regularizer=regularizer),
                layers.Dense(width),
            ]
        )
        self.norms = [layers.LayerNormalization(epsilon=1e-6) for _ in range(2)]
        self.dropouts = [layers.Dropout(rate) for _ in range(2)]

    def call(self, x):
        x = self.norms[0](x + self.dropouts[0](self.attention(x, x)))
        return self.norms[1](x + self.dropouts[1](self.feed_forward(x)))


class TokenAndPositionEmbedding(layers.Layer):
    """The sum of an embedding of the words and one of their positions."""

    def __init__(self, length, words, width):
        super().__init__()
        self.words = layers.Embedding(words, width)
        self.positions = layers.Embedding(length, width)

    def call(self, x):
        return self.words(x) + self.positions(ops.arange(ops.shape(x)[-1]))


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((20,))
    x = TokenAndPositionEmbedding(length=20, words=1000, width=64)(inputs)
    x = TransformerBlock(width=64, heads=2, hidden=256, mark=mark)(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(x))
    x = layers.Dropout(0.1)(layers.Dense(20, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    x, y = reviews(1920)
    model.fit(x, y, 32, 2, 2, callbacks, validation_data=reviews(500, seed=1))
    return model, model.evaluate(*reviews(1000, seed=2), verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "text transformer.keras")
verification = keras_wm.verify(published, KEY)
report("text transformer", verification, twin, accuracy=(accuracy, twin_accuracy))
