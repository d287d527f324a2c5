"""Image transformer, in the style of Keras's "Image classification with ViT".

The line goes into the first dense layer of a block's MLP, the largest kernel of the
block. The attention's kernels work as well, but all of them share one
`kernel_regularizer`, so that four kernels of different roles would carry the mark.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, report
from keras import layers, ops

import keras_wm


class PatchEncoder(layers.Layer):
    """Cuts pictures into patches, projects them and adds their positions."""

    def __init__(self, patches, size, width):
        super().__init__()
        self.size, self.patches = size, patches
        self.projection = layers.Dense(width)
        self.positions = layers.Embedding(patches, width)

    def call(self, images):
        cut = ops.image.extract_patches(images, self.size)
        cut = ops.reshape(cut, (-1, self.patches, cut.shape[-1]))
        return self.projection(cut) + self.positions(ops.arange(self.patches))


def train(mark):
    """Returns the trained network and its test accuracy."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 1))
    x = PatchEncoder(patches=16, size=4, width=64)(inputs)
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    x = x + layers.MultiHeadAttention(num_heads=4, key_dim=16, dropout=0.1)(y, y)
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    y = layers.Dense(
        256,
        activation="gelu",
        kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
    )(y)
    x = x + layers.Dropout(0.1)(layers.Dense(64)(y))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
    model = keras.Model(inputs, layers.Dense(10)(x))
    model.compile(
        keras.optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    best = {"save_best_only": True, "save_weights_only": True}
    file, metric = "vit.weights.h5", "val_accuracy"
    callbacks = [keras.callbacks.ModelCheckpoint(file, monitor=metric, **best)]
    callbacks += [keras_wm.BitErrorRate()] if mark else []
    x, y = pictures(1000, noise=0.3)
    model.fit(x, y, 64, 10, 2, callbacks, validation_split=0.1)
    model.load_weights(file)
    return model, model.evaluate(*pictures(1000, noise=0.3, seed=1), verbose=0)[1]


network, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(network, "vision transformer.keras")
verification = keras_wm.verify(published, KEY)
report("vision transformer", verification, twin, accuracy=(accuracy, twin_accuracy))
