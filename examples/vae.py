"""Variational autoencoder with its own `train_step`, in the style of Keras's VAE.

The line goes into the decoder, which is the part that is published. An own `train_step`
computes its own loss, which leaves out the penalties of regularizers:
`keras_wm.penalty` adds the mark's.

TensorFlow only, as the `train_step` of Keras's example.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from _data import pictures
from _report import KEY, report
from keras import layers, ops

import keras_wm


class VAE(keras.Model):
    """Encoder and decoder of pictures, with two latent variables."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def train_step(self, pictures):
        with tf.GradientTape() as tape:
            mean, log_variance = ops.split(self.encoder(pictures), 2, axis=1)
            code = mean + ops.exp(log_variance / 2) * tf.random.normal(tf.shape(mean))
            error = keras.losses.binary_crossentropy(pictures, self.decoder(code))
            kl = ops.square(mean) + ops.exp(log_variance) - log_variance - 1
            loss = ops.mean(ops.sum(error, (1, 2)) + 0.5 * ops.sum(kl, axis=1))
            loss += keras_wm.penalty(self)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"loss": loss}


def train(mark):
    """Returns the trained decoder and its mean squared error on test pictures."""
    keras.utils.set_random_seed(1)
    picture, code = keras.Input((12, 12, 1)), keras.Input((2,))
    x = layers.Conv2D(32, 3, 2, "same", activation="relu")(picture)
    encoder = keras.Model(picture, layers.Dense(2 + 2)(layers.Flatten()(x)))
    x = layers.Reshape((3, 3, 64))(layers.Dense(576, "relu")(code))
    x = layers.Conv2DTranspose(32, 3, 2, "same", kernel_regularizer=mark)(x)
    x = layers.Conv2DTranspose(1, 3, 2, "same", activation="sigmoid")(layers.ReLU()(x))
    model = VAE(encoder, keras.Model(code, x))
    model.compile("adam")
    data, test = pictures(2000, noise=0.3)[0], pictures(500, noise=0.3, seed=1)[0]
    model.fit(data, None, 64, 4, 2, [keras_wm.BitErrorRate()] if mark else [])
    output = model.decoder(model.encoder(test)[:, :2])
    return model.decoder, ops.mean(ops.square(test - output))


network, error = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "vae.keras")
report(keras_wm.verify(published, KEY), train(None), mse=error)
