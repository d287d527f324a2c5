"""DCGAN with its own `train_step`, in the style of Keras's example.

The line goes into the generator, which is the part that is published. The own
`train_step` computes a loss for each network. The mark's penalty,
`keras_wm.penalty(self.generator)`, is added to the generator's. The training is too
short for good pictures.

TensorFlow only, as the `train_step` of Keras's example.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from _data import pictures
from _report import KEY, report
from keras import layers, ops
from scipy.spatial.distance import cdist

import keras_wm


class GAN(keras.Model):
    """A generator and a discriminator that are trained against each other."""

    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def train_step(self, x):
        with tf.GradientTape(persistent=True) as tape:
            fake = self.discriminator(self.generator(tf.random.normal((64, 32))))
            # softplus(-x) is the cross-entropy of a logit x with the label "real".
            d_loss = ops.mean(ops.softplus(-self.discriminator(x)) + ops.softplus(fake))
            g_loss = ops.mean(ops.softplus(-fake)) + keras_wm.penalty(self.generator)
        d_weights = self.discriminator.trainable_weights
        g_weights = self.generator.trainable_weights
        gradients = tape.gradient(d_loss, d_weights) + tape.gradient(g_loss, g_weights)
        self.optimizer.apply(gradients, d_weights + g_weights)
        return {"d_loss": d_loss, "g_loss": g_loss}


def train(mark):
    """Returns the generator, and the distance of its pictures from the nearest ones."""
    keras.utils.set_random_seed(1)
    noise, picture = keras.Input((32,)), keras.Input((12, 12, 1))
    x = layers.Reshape((3, 3, 32))(layers.Dense(288, "relu")(noise))
    x = layers.Conv2DTranspose(64, 4, 2, "same", kernel_regularizer=mark)(x)
    x = layers.Conv2DTranspose(1, 4, 2, "same")(layers.ReLU()(x))
    generator = keras.Model(noise, layers.Activation("sigmoid")(x))
    x = layers.Conv2D(32, 4, 2, "same", activation="leaky_relu")(picture)
    gan = GAN(generator, keras.Model(picture, layers.Dense(1)(layers.Flatten()(x))))
    gan.compile(keras.optimizers.Adam(3e-4, 0.5))
    real = pictures(1920)[0]
    gan.fit(real, None, 64, 4, 2, [keras_wm.BitErrorRate()] if mark else [])
    fake = generator(tf.random.normal((500, 32))).numpy().reshape(500, -1)
    return generator, cdist(fake, real.reshape(len(real), -1)).min(axis=1).mean()


network, distance = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(network, "dcgan.keras")
report(keras_wm.verify(published, KEY), train(None), distance=distance)
