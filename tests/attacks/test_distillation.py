"""A fresh network that learns the answers."""

import dataclasses

import numpy as np
import pytest

from keras_wm.attacks.distillation import DISTILLATION
from keras_wm.attacks.training import train
from tests.attacks.trained import MARKED, PICTURES, arrays, correlation, network


@pytest.fixture(scope="module", params=[False, True], ids=["logits", "probabilities"])
def teacher(request):
    model = network(softmax=request.param)
    train(model, PICTURES, 0.1, epochs=16)
    return model


@pytest.fixture(scope="module")
def student(teacher):
    return DISTILLATION(teacher, PICTURES, 16)


def classes(model):
    return model.predict(PICTURES.x_test, verbose=0).argmax(axis=1)


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
