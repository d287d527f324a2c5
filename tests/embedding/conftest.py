"""A marked model whose training step is traced once for all tests of embedding."""

import pytest

from tests.conftest import fixed_key
from tests.models import dense_model, mark


@pytest.fixture(scope="session")
def traced_model():
    """A marked model and its initial weights; use `model` or `restored` instead.

    The mark is complete after about four epochs of `fit`.
    """
    model = dense_model(mark(fixed_key(), strength=3e-3))
    return model, model.get_weights()


def restored(traced_model):
    """Returns the traced model with its initial weights."""
    model, weights = traced_model
    model.set_weights(weights)
    model.stop_training = False
    model.optimizer.learning_rate = 0.1
    return model


@pytest.fixture
def model(traced_model):
    """A marked model with its initial weights. Tests may train it, but not change it.

    Fitting it is fast, because its training step is traced already.
    """
    model = restored(traced_model)
    regularizer = model.layers[0].kernel.regularizer
    yield model
    assert model.layers[0].kernel.regularizer is regularizer
