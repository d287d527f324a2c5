"""Scans in the process of the tests."""

from functools import partial
from types import SimpleNamespace

import pytest

from keras_wm.files import open_model_file
from keras_wm.scanning import scanner
from keras_wm.scanning.examiner import Examiner


def examine_in_this_process(settings, candidates):
    """Searches files in this process, without a sandbox."""
    examiner = Examiner(settings)
    examiner._sandbox = SimpleNamespace(
        open_model_file=lambda path: open_model_file(path, settings.limits)
    )
    return map(examiner.examine, candidates)


@pytest.fixture
def here(monkeypatch):
    """Makes scans work in this process, which takes no time to start others."""
    monkeypatch.setattr(
        scanner,
        "_examiner_of",
        lambda settings, *_: partial(examine_in_this_process, settings),
    )
