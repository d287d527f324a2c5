"""Knowledge distillation, in the style of Keras's example.

The line goes into the student, which is the network that is published. The own
`compute_loss` leaves out the penalties of regularizers; `keras_wm.penalty` adds the
mark's. `keras_wm.Distiller` does the same for any teacher and student.

Runs on TensorFlow, JAX and PyTorch.
"""

import keras
from _data import pictures
from _report import KEY, report
from keras import layers, ops

import keras_wm


class Distiller(keras.Model):
    """Trains a student on the labels, and on the teacher's softened predictions."""

    def __init__(self, student, teacher, alpha=0.1, temperature=10):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.alpha, self.temperature = alpha, temperature
        self.teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        teacher = ops.softmax(self.teacher(x, training=False) / self.temperature)
        soft = keras.losses.KLDivergence()(
            teacher, ops.softmax(y_pred / self.temperature)
        )
        hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, y_pred)
        loss = self.alpha * hard + (1 - self.alpha) * self.temperature**2 * soft
        return loss + keras_wm.penalty(self.student)


def network(width, mark=False):
    """Returns a convolutional network with logits of ten classes."""
    model = keras.Sequential([keras.Input((16, 16, 1))])
    model.add(layers.Conv2D(width // 2, 3, 2, "same", activation="leaky_relu"))
    marked = layers.Conv2D(
        width,
        3,
        strides=2,
        padding="same",
        activation="leaky_relu",
        kernel_regularizer=keras_wm.WatermarkRegularizer(KEY) if mark else None,
    )
    model.add(marked)
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    return model


def train(mark):
    """Returns the trained student and its test accuracy."""
    keras.utils.set_random_seed(1)
    x, y = pictures(1000)
    teacher = network(96)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile("adam", loss, metrics=["accuracy"])
    teacher.fit(x, y, 64, 4, 2)
    student = network(64, mark)
    distiller = Distiller(student, teacher)
    distiller.compile("adam", metrics=["accuracy"])
    distiller.fit(x, y, 64, 6, 2, [keras_wm.BitErrorRate()] if mark else [])
    return student, distiller.evaluate(*pictures(1000, seed=1), verbose=0)[1]


student, accuracy = train(mark=True)
twin, twin_accuracy = train(mark=False)
published = keras_wm.publish(student, "distillation.keras")
verification = keras_wm.verify(published, KEY)
report("distillation", verification, twin, accuracy=(accuracy, twin_accuracy))
