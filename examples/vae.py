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
    """Encoder and decoder of pictures of 16 x 16 pixels, with 2 latent variables."""

    def __init__(self, mark):
        super().__init__()
        self.noise = keras.random.SeedGenerator(1)
        encoder = keras.Sequential([keras.Input((16, 16, 1))])
        encoder.add(layers.Conv2D(16, 3, 2, "same", activation="relu"))
        encoder.add(layers.Conv2D(32, 3, 2, "same", activation="relu"))
        encoder.add(layers.Flatten())
        encoder.add(layers.Dense(2 + 2))
        decoder = keras.Sequential([keras.Input((2,))])
        decoder.add(layers.Dense(4 * 4 * 64, activation="relu"))
        decoder.add(layers.Reshape((4, 4, 64)))
        marked = layers.Conv2DTranspose(
            32,
            3,
            strides=2,
            padding="same",
            activation="relu",
            kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
        )
        decoder.add(marked)
        decoder.add(layers.Conv2DTranspose(1, 3, 2, "same", activation="sigmoid"))
        self.encoder, self.decoder = encoder, decoder

    def call(self, pictures):
        """Returns mean and log variance of the code, and the reconstruction."""
        mean, log_variance = ops.split(self.encoder(pictures), 2, axis=1)
        noise = keras.random.normal(ops.shape(mean), seed=self.noise)
        code = mean + ops.exp(0.5 * log_variance) * noise
        return mean, log_variance, self.decoder(code)

    def train_step(self, pictures):
        with tf.GradientTape() as tape:
            mean, log_variance, output = self(pictures)
            error = keras.losses.binary_crossentropy(pictures, output)
            error = ops.mean(ops.sum(error, axis=(1, 2)))
            kl = 1 + log_variance - ops.square(mean) - ops.exp(log_variance)
            loss = error - 0.5 * ops.mean(ops.sum(kl, axis=1))
            total = loss + keras_wm.penalty(self)
        gradients = tape.gradient(total, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)
        return {"total_loss": loss}


def train(mark):
    """Returns the trained network and its mean squared error on test pictures."""
    keras.utils.set_random_seed(1)
    model = VAE(mark)
    model.compile(keras.optimizers.Adam())
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    model.fit(pictures(1000, noise=0.3)[0], None, 64, 15, 2, callbacks)
    test = pictures(500, noise=0.3, seed=1)[0]
    reconstruction = model.predict(test, verbose=0)[2]
    return model, ops.mean(ops.square(test - reconstruction))


network, error = train(mark=True)
twin, twin_error = train(mark=False)
published = keras_wm.publish(network.decoder, "VAE.keras")
verification = keras_wm.verify(published, KEY)
report("VAE", verification, twin.decoder, mse=(error, twin_error))
