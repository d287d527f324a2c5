"""A fresh network that learns the answers."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_wm.research.attacks.distillation import DISTILLATION
from keras_wm.research.attacks.training import train
from tests.research.attacks.trained import (
    IS_THIRD,
    MARKED,
    PICTURES,
    arrays,
    correlation,
    network,
)

KINDS = {
    "logits": (PICTURES, None, 3),
    "probabilities": (PICTURES, "softmax", 3),
    "one logit": (IS_THIRD, None, 1),
    "one probability": (IS_THIRD, "sigmoid", 1),
}


@pytest.fixture(scope="module", params=list(KINDS))
def teacher(request):
    data, activation, answers = KINDS[request.param]
    model = network(activation, answers=answers)
    train(model, data, 0.1, epochs=16)
    return model


@pytest.fixture(scope="module")
def student(teacher):
    return DISTILLATION(teacher, IS_THIRD, 16)


def classes(model):
    answers = model.predict(PICTURES.x_test, verbose=0)
    if answers.shape[1] > 1:
        return answers.argmax(axis=1)
    sigmoid = model.layers[-1].activation is keras.activations.sigmoid
    return answers[:, 0] > (0.5 if sigmoid else 0)


@pytest.mark.backends
def test_a_student_says_what_its_teacher_says(teacher, student):
    assert np.mean(classes(student) == classes(teacher)) > 0.8


@pytest.mark.backends
def test_nothing_of_the_teachers_kernels_is_in_the_students(teacher, student):
    for name in ("one/kernel", f"{MARKED}/kernel"):
        left, right = arrays(teacher)[name], arrays(student)[name]
        # Within 5 standard deviations of what independent kernels have.
        assert abs(correlation(left, right)) < 5 / left.size**0.5


def test_no_label_is_used():
    teacher = network()
    other = dataclasses.replace(PICTURES, y_train=2 - PICTURES.y_train)
    found = [
        arrays(DISTILLATION(teacher, data, 2))[f"{MARKED}/kernel"]
        for data in (PICTURES, other)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)
