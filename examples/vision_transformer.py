"""Image transformer, in the style of Keras's "Image classification with ViT".

The line goes into the first dense layer of a block's MLP, the largest kernel of the
block. The attention's kernels work as well, but all of them share one
`kernel_regularizer`, so that four kernels of different roles would carry the mark.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _layers import Positions
from _report import KEY, accuracy, report
from keras import layers

import keras_wm


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 12, 1))
    patches = layers.Conv2D(64, 4, strides=4)(inputs)
    x = Positions()(layers.Reshape((9, 64))(patches))
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(num_heads=4, key_dim=16)(y, y)
    y = layers.LayerNormalization()(x)
    y = layers.Dense(256, activation="gelu", kernel_regularizer=mark)(y)
    x = x + layers.Dense(64)(y)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    optimizer = keras.optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    # Otherwise TensorFlow traces the first step twice, to create these variables.
    model.optimizer.build(model.trainable_variables)
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    x, y = pictures(1280, noise=0.3)
    model.fit(x, y, batch_size=32, epochs=3, verbose=2, callbacks=callbacks)
    return model, accuracy(model, *pictures(1000, noise=0.3, seed=1))


network, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "vision_transformer.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
