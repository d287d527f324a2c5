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
    penalty,
)

pytestmark = pytest.mark.backends

STRENGTH = 0.02
# JAX compiles or is slow; TensorFlow's XLA would take seconds per model.
JIT = {"jit_compile": keras.backend.backend() == "jax"}
EAGER = {"run_eagerly": True}


@pytest.fixture(scope="module")
def teacher():
    model = dense_model()
    fit(model, epochs=10)
    return model


def compiled(distiller, rate=0.0, loss=None, **arguments):
    distiller.compile(keras.optimizers.SGD(rate), loss, **(arguments or EAGER))
    return distiller


def distil(distiller, **arguments):
    x, _ = data()
    defaults = {"batch_size": 64, "shuffle": False, "verbose": 0}
    return distiller.fit(x, **{**defaults, **arguments}).history


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def expected_divergence(teacher, student, x):
    """Returns KL(teacher || student) of the softmax, the mean over the inputs."""
    from_teacher, from_student = (
        log_softmax(keras.ops.convert_to_numpy(model(x)))
        for model in (teacher, student)
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
    history = distil(compiled(keras_wm.Distiller(teacher, student)))
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


def test_true_labels_are_weighted_on_request(teacher):
    student = dense_model()
    x, y = data()
    logits = keras.ops.convert_to_numpy(student(x))
    cross_entropy = -log_softmax(logits)[np.arange(len(y)), y]
    expected = (
        0.7 * expected_divergence(teacher, student, x) + 0.3 * cross_entropy.mean()
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = keras_wm.Distiller(teacher, student, student_loss_weight=0.3)
    history = distil(compiled(distiller, loss=loss), y=y)
    assert history["loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.study
def test_a_student_learns_without_labels_and_carries_the_mark(teacher, key, tmp_path):
    student = dense_model()
    keras_wm.attach(student, LAYER, key, strength=STRENGTH)
    before = teacher.get_weights()
    x, _ = data()
    first_divergence = expected_divergence(teacher, student, x)
    # Epochs of many steps, because each of them is measured.
    history = compiled(keras_wm.Distiller(teacher, student), 0.3, **JIT).fit(
        np.tile(x, (40, 1)),
        batch_size=16,
        epochs=2,
        verbose=0,
        callbacks=[keras_wm.BitErrorRate()],
    )
    assert expected_divergence(teacher, student, x) < first_divergence / 10
    assert history.history["ber"][-1] == expected_ber(kernel_of(student), key) == 0
    for left, was in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(left, was)
    file = tmp_path / "student.keras"
    keras_wm.publish(student, file)
    assert keras_wm.verify(file, key).ber == 0


def keras_distiller(teacher, student, kind=keras.distillation.Distiller):
    """Returns a compiled distiller that is not keras_wm's."""
    made = kind(teacher, student, keras.distillation.LogitsDistillation())
    return compiled(made, loss="sparse_categorical_crossentropy")


def test_keras_own_distiller_is_warned_of_because_it_ignores_the_mark(teacher, key):
    student = dense_model(mark(key, strength=STRENGTH))
    distiller = keras_distiller(teacher, student)
    with pytest.warns(UserWarning, match=r"not being trained.*keras_wm\.Distiller"):
        distil(distiller, y=data()[1], callbacks=[keras_wm.BitErrorRate()])


def test_a_mark_of_the_teacher_is_not_reported_for_the_student(key):
    student = dense_model()
    keras_wm.attach(student, LAYER, key, strength=STRENGTH)
    distiller = compiled(keras_wm.Distiller(dense_model(mark(key)), student))
    history = distil(distiller, callbacks=[keras_wm.BitErrorRate()])
    assert history["ber"] == [expected_ber(kernel_of(student), key)]
    assert "ber/wide" not in history


def test_a_derived_distiller_that_adds_the_penalties_is_not_warned_of(teacher, key):
    class WithPenalties(keras.distillation.Distiller):
        def compute_loss(self, *arguments, **keywords):
            return super().compute_loss(*arguments, **keywords) + sum(
                self.student.losses
            )

    student = dense_model(mark(key, strength=STRENGTH))
    assert penalty(student) > 0
    distiller = keras_distiller(teacher, student, WithPenalties)
    history = distil(distiller, y=data()[1], callbacks=[keras_wm.BitErrorRate()])
    assert history["ber"] == [expected_ber(kernel_of(student), key)]
