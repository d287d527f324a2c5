"""A small study: pictures of three kinds, which a small network soon tells apart."""

import numpy as np
import pytest

from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments import Settings

BITS = 32


def made_arrays():
    """120 pictures for training, 60 for tests; how bright they are tells the kind."""
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
    """The pictures as a file."""
    return save_made_arrays(tmp_path_factory.mktemp("data") / "made.npz")


def save_made_arrays(path):
    """Writes them as `keras_wm.research.datasets` reads them."""
    np.savez(path, **made_arrays())
    return path


def made_pictures():
    """The pictures as the experiments see them."""
    arrays = made_arrays()
    x = {name: np.float32(arrays[f"x_{name}"]) / 255 for name in ("train", "test")}
    return Pictures("made", x["train"], arrays["y_train"], x["test"], arrays["y_test"])


@pytest.fixture
def pictures():
    """The pictures as the experiments see them."""
    return made_pictures()


@pytest.fixture
def settings(made_file):
    """A network of a minute part of the papers' size."""
    return Settings(
        str(made_file), epochs=2, seeds=1, k=1, batch=8, bits=BITS, marks=("random",)
    )
