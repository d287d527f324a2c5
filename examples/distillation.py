"""Knowledge distillation, in the style of Keras's example.

The line goes into the student, which is the network that is published. The own
`compute_loss` leaves out the penalties of regularizers; `keras_wm.penalty` adds the
mark's. `keras_wm.Distiller` does the same for any teacher and student.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, accuracy, report
from keras import layers, ops

import keras_wm


class Distiller(keras.Model):
    """Trains a student on the labels, and on the teacher's softened predictions."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, y_pred)
        targets = ops.softmax(self.teacher(x, training=False) / 3)
        soft = keras.losses.KLDivergence()(targets, ops.softmax(y_pred / 3))
        return 0.1 * hard + 0.9 * 3**2 * soft + keras_wm.penalty(self.student)


def network(width, mark=None):
    """Returns a network with logits of ten classes."""
    hidden = layers.Dense(width, activation="relu", kernel_regularizer=mark)
    inputs = keras.Input((12, 12, 1))
    return keras.Sequential([inputs, layers.Flatten(), hidden, layers.Dense(10)])


def train(mark):
    """Returns the trained student and its test accuracy."""
    keras.utils.set_random_seed(1)
    x, y = pictures(2000)
    teacher, student = network(1024), network(256, mark)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile("adam", loss)
    teacher.fit(x, y, batch_size=64, epochs=4, verbose=2)
    distiller = Distiller(student, teacher)
    distiller.build(x.shape)
    distiller.compile("adam")
    callbacks = [keras_wm.BitErrorRate()] if mark else []
    distiller.fit(x, y, batch_size=64, epochs=5, verbose=2, callbacks=callbacks)
    return student, accuracy(student, *pictures(1000, seed=1))


student, result = train(keras_wm.WatermarkRegularizer(KEY))
published = keras_wm.publish(student, "distillation.keras")
report(keras_wm.verify(published, KEY), train(None), accuracy=result)
