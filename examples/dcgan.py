"""DCGAN with its own `train_step`, in the style of Keras's example.

The line goes into the generator, which is the part that is published. The own
`train_step` computes a loss for each network. The mark's penalty,
`keras_wm.penalty(self.generator)`, is added to the generator's.

TensorFlow only, as the `train_step` of Keras's example.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from _data import pictures
from _report import KEY, report
from keras import layers

import keras_wm

LATENT = 32


class GAN(keras.Model):
    """A generator and a discriminator that are trained against each other."""

    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.seed = keras.random.SeedGenerator(1)

    def compile(self, d_optimizer, g_optimizer):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.loss_fn = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, real):
        count = tf.shape(real)[0]
        fake = self.generator(keras.random.normal((count, LATENT), seed=self.seed))
        labels = tf.concat([tf.ones((count, 1)), tf.zeros((count, 1))], axis=0)
        with tf.GradientTape() as tape:
            predictions = self.discriminator(tf.concat([fake, real], axis=0))
            d_loss = self.loss_fn(labels, predictions)
        weights = self.discriminator.trainable_weights
        self.d_optimizer.apply(tape.gradient(d_loss, weights), weights)

        noise = keras.random.normal((count, LATENT), seed=self.seed)
        with tf.GradientTape() as tape:
            predictions = self.discriminator(self.generator(noise))
            g_loss = self.loss_fn(tf.zeros((count, 1)), predictions)
            g_loss += keras_wm.penalty(self.generator)
        weights = self.generator.trainable_weights
        self.g_optimizer.apply(tape.gradient(g_loss, weights), weights)
        return {"d_loss": d_loss, "g_loss": g_loss}


def train(mark):
    """Returns the trained GAN and the distance of its mean picture from the real."""
    keras.utils.set_random_seed(1)
    discriminator = keras.Sequential([keras.Input((16, 16, 1))])
    discriminator.add(layers.Conv2D(16, 3, 2, "same", activation="leaky_relu"))
    discriminator.add(layers.Conv2D(32, 3, 2, "same", activation="leaky_relu"))
    discriminator.add(layers.GlobalMaxPooling2D())
    discriminator.add(layers.Dense(1))
    generator = keras.Sequential([keras.Input((LATENT,))])
    generator.add(layers.Dense(4 * 4 * 32, activation="leaky_relu"))
    generator.add(layers.Reshape((4, 4, 32)))
    marked = layers.Conv2DTranspose(
        64,
        4,
        strides=2,
        padding="same",
        activation="leaky_relu",
        kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
    )
    generator.add(marked)
    generator.add(layers.Conv2DTranspose(16, 4, 2, "same", activation="leaky_relu"))
    generator.add(layers.Conv2D(1, 5, padding="same", activation="sigmoid"))
    gan = GAN(generator, discriminator)
    gan.compile(keras.optimizers.Adam(3e-4), keras.optimizers.Adam(3e-4))
    real = pictures(1000)[0]
    gan.fit(real, None, 64, 6, 2, [keras_wm.BitErrorRate()] if mark else [])
    noise = keras.random.normal((500, LATENT), seed=2)
    fake = generator.predict(noise, verbose=0)
    return gan, abs(fake.mean(axis=0) - real.mean(axis=0)).mean()


network, distance = train(mark=True)
twin, twin_distance = train(mark=False)
published = keras_wm.publish(network.generator, "DCGAN.keras")
verification = keras_wm.verify(published, KEY)
report("DCGAN", verification, twin.generator, distance=(distance, twin_distance))
