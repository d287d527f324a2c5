"""What tests of attacks share."""

import pytest

from keras_wm.research.attacks import training


@pytest.fixture
def short(monkeypatch):
    """Attackers who train for three epochs of the 120 pictures, and not for eighty."""
    monkeypatch.setattr(training, "STEPS", 12)
