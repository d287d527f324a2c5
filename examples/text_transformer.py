"""Text transformer, in the style of Keras's "Text classification with Transformer".

The line goes into the feed-forward network of a block, which is inside a layer of the
user's own. The mark is found there, however deep it is nested. The embedding is larger,
but a word that is not in the texts has weights that only the mark moves.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import reviews
from _layers import Positions
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


class TransformerBlock(layers.Layer):
    """Attention and a feed-forward network, each with a skip connection."""

    def __init__(self, width, mark=None, **options):
        super().__init__(**options)
        self.attention = layers.MultiHeadAttention(num_heads=2, key_dim=width // 2)
        hidden = layers.Dense(4 * width, activation="relu", kernel_regularizer=mark)
        self.feed_forward = keras.Sequential([hidden, layers.Dense(width)])
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.width = width

    def call(self, x):
        x = self.norms[0](x + self.attention(x, x))
        return self.norms[1](x + self.feed_forward(x))

    def get_config(self):
        # The regularizer is left out, so that the published file does not mention it.
        return {**super().get_config(), "width": self.width}


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((20,), dtype="int32")
    x = Positions()(layers.Embedding(1000, 64)(inputs))
    x = TransformerBlock(64, mark)(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    # Otherwise TensorFlow traces the first step twice, to create these variables.
    model.optimizer.build(model.trainable_variables)
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    x, y = reviews(1600)
    model.fit(x, y, batch_size=32, epochs=2, verbose=2, callbacks=callbacks)
    return model, accuracy(model, *reviews(1000, seed=1))


network, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "text_transformer.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
