"""Settings and pictures of a small study: a small network soon learns the classes."""

import keras
import numpy as np
import pytest

from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments import Settings

BITS = 32


def made_arrays():
    """120 pictures to train with and 60 to test with; the class is the brightness."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 180)
    x = rng.integers(0, 120, (180, 8, 8, 1)) + 40 * y[:, None, None, None]
    return {
        "x_train": x[:120],
        "y_train": y[:120],
        "x_test": x[120:],
        "y_test": y[120:],
    }


@pytest.fixture(scope="session")
def made_file(tmp_path_factory):
    """A file with the pictures."""
    return save_made_arrays(tmp_path_factory.mktemp("data") / "made.npz")


def save_made_arrays(path):
    """Writes the pictures as `keras_wm.research.datasets` reads them."""
    np.savez(path, **made_arrays())
    return path


def made_pictures():
    """Returns the pictures as the experiments load them."""
    arrays = made_arrays()
    x = {name: np.float32(arrays[f"x_{name}"]) / 255 for name in ("train", "test")}
    return Pictures("made", x["train"], arrays["y_train"], x["test"], arrays["y_test"])


@pytest.fixture
def pictures():
    """The pictures as the experiments load them."""
    return made_pictures()


@pytest.fixture
def settings(made_file):
    """Settings of a small study, with three training steps per epoch."""
    return Settings(
        str(made_file), epochs=1, seeds=1, k=1, batch=40, bits=BITS, marks=("random",)
    )


@pytest.fixture
def eager(monkeypatch):
    """Runs networks eagerly: tracing takes longer than the few steps of a test."""
    run_eagerly(monkeypatch)


def run_eagerly(patch):
    """Makes all networks run eagerly while a `MonkeyPatch` is active."""
    always = property(lambda model: True, lambda model, value: None)
    patch.setattr(keras.Model, "run_eagerly", always)
