"""Distilling a network into a new one."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_wm.research.attacks.distillation import DISTILLATION
from tests.research.attacks.trained import (
    IS_THIRD,
    MARKED,
    PICTURES,
    arrays,
    correlation,
    network,
    outputs_of,
)


@pytest.fixture(scope="module")
def teacher(learned):
    model, _ = learned
    return model


@pytest.fixture(scope="module")
def student(teacher):
    return DISTILLATION(teacher, IS_THIRD, 16)


def classes(model):
    outputs = outputs_of(model)
    if outputs.shape[1] > 1:
        return outputs.argmax(axis=1)
    sigmoid = model.layers[-1].activation is keras.activations.sigmoid
    return outputs[:, 0] > (0.5 if sigmoid else 0)


@pytest.mark.backends
def test_a_student_predicts_the_classes_of_its_teacher(teacher, student):
    assert np.mean(classes(student) == classes(teacher)) > 0.8


@pytest.mark.backends
def test_the_students_kernels_are_independent_of_the_teachers(teacher, student):
    for name in ("one/kernel", f"{MARKED}/kernel"):
        # Brightness decides the class, so both networks learn filters whose means have
        # the same signs. The filters are compared without their means.
        left, right = (
            kernel - kernel.mean(axis=(0, 1), keepdims=True)
            for kernel in (arrays(teacher)[name], arrays(student)[name])
        )
        # Independent kernels have a standard deviation of 1 / sqrt(N); this is 5.
        assert abs(correlation(left, right)) < 5 / left.size**0.5


def test_labels_are_not_used(one_epoch):
    teacher = network()
    relabelled = dataclasses.replace(PICTURES, y_train=2 - PICTURES.y_train)
    kernels = [
        arrays(DISTILLATION(teacher, data, 2))[f"{MARKED}/kernel"]
        for data in (PICTURES, relabelled)
    ]
    np.testing.assert_allclose(*kernels, atol=1e-5)
