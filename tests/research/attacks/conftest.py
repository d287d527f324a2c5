"""Fixtures for the tests of attacks."""

import pytest

from keras_wm.research.attacks import training
from keras_wm.research.attacks.fine_tuning import RTAL
from tests.research.attacks.trained import IS_THIRD, PICTURES, network
from tests.research.untraced import run_eagerly

# Data, activation of the head, and number of outputs.
KINDS_OF_OUTPUT = {
    "logits": (PICTURES, None, 3),
    "probabilities": (PICTURES, "softmax", 3),
    "one logit": (IS_THIRD, None, 1),
    "one probability": (IS_THIRD, "sigmoid", 1),
}


@pytest.fixture
def one_epoch(monkeypatch):
    """Shortens attacks that train from 320 steps to one epoch of four eager steps."""
    monkeypatch.setattr(training, "STEPS", 4)
    run_eagerly(monkeypatch)


@pytest.fixture(scope="session", params=list(KINDS_OF_OUTPUT))
def learned(request):
    """A network that learned its task in 60 steps, and the data of the task."""
    data, activation, outputs = KINDS_OF_OUTPUT[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "STEPS", 60)
        return RTAL(network(activation, outputs=outputs), data, 0.1), data
