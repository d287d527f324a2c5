"""A student that learns from a teacher and embeds its marks meanwhile."""

import keras
import numpy as np
import pytest

import keras_wm
from tests.models import (
    LAYER,
    data,
    dense_model,
    expected_ber,
    expected_margin_loss,
    fit,
    kernel_of,
    mark,
)

pytestmark = pytest.mark.backends

STRENGTH = 0.02
# JAX compiles or is slow; TensorFlow's XLA would cost seconds a model.
JIT = {"jit_compile": keras.backend.backend() == "jax"}


@pytest.fixture(scope="module")
def teacher():
    model = dense_model()
    fit(model, epochs=20)
    return model


def distiller(teacher, student, kind=keras_wm.Distiller, rate=0.3, **arguments):
    made = kind(teacher, student, **arguments)
    made.compile(keras.optimizers.SGD(rate), **JIT)
    return made


def distil(model, epochs=1, callbacks=()):
    x, _ = data()
    arguments = {"batch_size": 16, "shuffle": False, "verbose": 0}
    return model.fit(x, epochs=epochs, callbacks=list(callbacks), **arguments).history


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def expected_divergence(teacher, student, x):
    """KL(teacher || student) of the softmax answers, the mean over the inputs."""
    from_teacher, from_student = (
        log_softmax(model.predict(x, verbose=0)) for model in (teacher, student)
    )
    differences = np.exp(from_teacher) * (from_teacher - from_student)
    return differences.sum(axis=1).mean()


def test_the_loss_is_the_divergence_and_the_penalties(teacher, key):
    student = dense_model(
        mark(key, strength=STRENGTH, margin=2.0, regularizer=keras.regularizers.L2(0.1))
    )
    expected = (
        expected_divergence(teacher, student, data()[0])
        + STRENGTH * expected_margin_loss(kernel_of(student), key, 2.0)
        + 0.1 * np.sum(np.square(kernel_of(student)))
    )
    history = distil(distiller(teacher, student, rate=0.0))
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_true_labels_are_weighed_in_where_they_are_asked_for(teacher):
    student = dense_model()
    x, y = data()
    cross_entropy = -log_softmax(student.predict(x, verbose=0))[np.arange(len(y)), y]
    expected = (
        0.7 * expected_divergence(teacher, student, x) + 0.3 * cross_entropy.mean()
    )
    made = keras_wm.Distiller(teacher, student, student_loss_weight=0.3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.SGD(0.0), loss, **JIT)
    history = made.fit(x, y, batch_size=len(x), verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_a_student_learns_without_labels_and_carries_the_mark(teacher, key, tmp_path):
    student = dense_model()
    keras_wm.attach(student, LAYER, key, strength=STRENGTH)
    before = teacher.get_weights()
    x, _ = data()
    far = expected_divergence(teacher, student, x)
    history = distil(
        distiller(teacher, student), 60, callbacks=[keras_wm.BitErrorRate()]
    )
    assert expected_divergence(teacher, student, x) < far / 10
    assert history["ber"][-1] == expected_ber(kernel_of(student), key) == 0
    for left, was in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(left, was)
    file = tmp_path / "student.keras"
    keras_wm.publish(student, file)
    assert keras_wm.verify(file, key).ber == 0


def test_keras_own_distiller_is_warned_of_since_it_embeds_nothing(teacher, key):
    student = dense_model(mark(key, strength=STRENGTH))
    made = keras.distillation.Distiller(
        teacher, student, keras.distillation.LogitsDistillation()
    )
    made.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **JIT)
    x, y = data()
    with pytest.warns(UserWarning, match=r"not being trained.*keras_wm\.Distiller"):
        made.fit(x, y, verbose=0, callbacks=[keras_wm.BitErrorRate()])


def test_a_mark_of_the_teacher_is_not_the_students(key):
    marked = dense_model(mark(key))
    student = dense_model()
    keras_wm.attach(student, LAYER, key, strength=STRENGTH)
    made = distiller(marked, student)
    history = distil(made, callbacks=[keras_wm.BitErrorRate()])
    assert history["ber"] == [expected_ber(kernel_of(student), key)]
    assert "ber/wide" not in history


def test_a_derived_distiller_that_heeds_penalties_is_not_warned_of(teacher, key):
    class Heeding(keras.distillation.Distiller):
        def compute_loss(self, *arguments, **keywords):
            return super().compute_loss(*arguments, **keywords) + sum(
                self.student.losses
            )

    student = dense_model(mark(key, strength=STRENGTH))
    made = Heeding(teacher, student, keras.distillation.LogitsDistillation())
    made.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **JIT)
    x, y = data()
    history = made.fit(x, y, verbose=0, callbacks=[keras_wm.BitErrorRate()]).history
    assert history["ber"] == [expected_ber(kernel_of(student), key)]
