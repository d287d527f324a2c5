"""Fixtures for the tests of attacks."""

from functools import partialmethod

import keras
import pytest

from keras_wm.research.attacks import training
from keras_wm.research.attacks.fine_tuning import RTAL
from tests.research.attacks.trained import IS_THIRD, PICTURES, network

# Data, activation of the head, and number of outputs.
KINDS_OF_OUTPUT = {
    "logits": (PICTURES, None, 3),
    "probabilities": (PICTURES, "softmax", 3),
    "one logit": (IS_THIRD, None, 1),
    "one probability": (IS_THIRD, "sigmoid", 1),
}


@pytest.fixture
def one_epoch(monkeypatch):
    """Shortens attacks that train to one untraced epoch of 120 pictures.

    That is four steps instead of 320. TensorFlow takes longer to trace a network than
    to train it for so few steps: 1.4 against 0.7 CPU seconds.
    """
    monkeypatch.setattr(training, "STEPS", 4)
    if keras.backend.backend() == "tensorflow":
        eager = partialmethod(keras.Model.compile, run_eagerly=True)
        monkeypatch.setattr(keras.Model, "compile", eager)


@pytest.fixture(scope="session", params=list(KINDS_OF_OUTPUT))
def learned(request):
    """Networks that learned their task in 60 steps, and their data."""
    data, activation, outputs = KINDS_OF_OUTPUT[request.param]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "STEPS", 60)
        return RTAL(network(activation, outputs=outputs), data, 0.1), data
