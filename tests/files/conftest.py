"""Model files that many tests use."""

import pytest

from tests.files.keras_models import write_all_formats
from tests.files.written import write_archive, write_weights


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """One model in every format that the installed Keras writes, and its kernels."""
    return write_all_formats(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def weights(tmp_path):
    """A small weights file with one kernel, in layer `c1`."""
    return write_weights(tmp_path / "good.weights.h5")


@pytest.fixture
def archive(tmp_path):
    """A small archive with one kernel, in layer `c1`."""
    return write_archive(tmp_path / "good.keras")
