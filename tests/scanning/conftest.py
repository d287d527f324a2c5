"""Workers that scan in the process of the tests."""

from types import SimpleNamespace

import pytest

from keras_wm.files import open_model_file
from keras_wm.scanning import scanner
from keras_wm.scanning.examiner import Examiner


class HereWorkers:
    """Searches files in this process, without a sandbox; see `Workers`."""

    def __init__(self, settings):
        self._examiner = Examiner(settings)
        self._examiner._sandbox = SimpleNamespace(
            open_model_file=lambda path: open_model_file(path, settings.limits)
        )

    def examine(self, candidates):
        return map(self._examiner.examine, candidates)


@pytest.fixture
def here(monkeypatch):
    """Makes scans work in this process, which takes no time to start others."""
    monkeypatch.setattr(
        scanner, "_start_workers", lambda settings, *_: HereWorkers(settings)
    )
