"""A small model file, its claim, and time-stamping authorities."""

import numpy as np
import pytest

from keras_wm import Claim
from tests.claims.authority import Authority
from tests.conftest import fixed_key
from tests.files.written import write_weights


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A file with one kernel of 12 x 8 weights in the layer c1."""
    kernel = np.random.default_rng(1).normal(size=(12, 8)).astype("float32")
    path = tmp_path_factory.mktemp("model") / "a.weights.h5"
    return write_weights(path, kernel)


@pytest.fixture(scope="session")
def claim(model_file):
    """A claim for the model, without stamps."""
    return Claim.make(model_file, fixed_key(), {"c1": 1})


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """An authority whose certificates are valid for five years."""
    return Authority(tmp_path_factory.mktemp("tsa") / "a", "First")


@pytest.fixture(scope="session")
def later_authority(tmp_path_factory):
    """An authority whose certificates are valid for fifty years."""
    return Authority(tmp_path_factory.mktemp("tsa") / "b", "Second", valid=(-10, 50))
