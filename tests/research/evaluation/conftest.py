"""A small marked network, its unmarked twin, and an evaluation of it."""

import numpy as np
import pytest

from keras_wm.research.attacks import training
from keras_wm.research.attacks.attack import published_copy
from keras_wm.research.datasets import Pictures
from keras_wm.research.evaluation import evaluate

FAMILIES = ("quantization", "equivalence", "fusion")


@pytest.fixture(scope="session")
def pictures(marked):
    """What the marked network was trained on, which it knows by heart."""
    x, y = marked.x.astype(np.float32), marked.y
    # Many times over: Keras takes longer to begin an epoch than for two steps of it.
    return Pictures("noise", np.tile(x, (20, 1, 1, 1)), np.tile(y, 20), x, y)


@pytest.fixture(scope="session")
def twin(marked):
    """A network of the same kind without a mark."""
    model = published_copy(marked.model)
    rng = np.random.default_rng(5)
    for variable in model.weights:
        variable.assign(0.1 * rng.normal(size=variable.shape))
    return model


@pytest.fixture(scope="session")
def evaluation(marked, pictures, twin):
    """The marked network's report, with three families of attacks."""
    with pytest.MonkeyPatch.context() as patched:
        # Attackers who go through the pictures once.
        patched.setattr(training, "STEPS", 12)
        return evaluate(
            marked.files[".keras"],
            marked.key,
            pictures,
            baseline=twin,
            unmarked=[twin],
            families=FAMILIES,
            strengths=2,
        )
