"""A small marked network, its unmarked twin, and an evaluation of it."""

import numpy as np
import pytest

from keras_wm.research.attacks import training
from keras_wm.research.attacks.attack import published_copy
from keras_wm.research.attacks.equivalence import PERMUTATION
from keras_wm.research.attacks.fine_tuning import with_fine_tuning
from keras_wm.research.attacks.fusion import FUSION
from keras_wm.research.attacks.perturbation import QUANTIZATION
from keras_wm.research.datasets import Pictures
from keras_wm.research.evaluation import evaluate, evaluator
from tests.research.untraced import run_eagerly

# Attacks that keep the mark, hide it, train, and do not apply to the network.
FAMILIES = {
    "quantization": (QUANTIZATION,),
    "equivalence": (PERMUTATION, with_fine_tuning(PERMUTATION)),
    "fusion": (FUSION,),
}
WRONG_KEYS = 20


def shorten(patch):
    """Limits an evaluation to as few steps as possible, with a `MonkeyPatch`."""
    # One epoch of 64 pictures.
    patch.setattr(training, "STEPS", 2)
    patch.setattr(evaluator, "TIMED_STEPS", 2)
    patch.setattr(evaluator, "WRONG_KEYS", WRONG_KEYS)
    run_eagerly(patch)


@pytest.fixture(scope="module", autouse=True)
def short():
    """Shortens all evaluations of a module, but not those of other rooms' tests."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@pytest.fixture(scope="session")
def pictures(marked):
    """The training data of the marked network, which it knows by heart."""
    x, y = marked.x.astype(np.float32), marked.y
    return Pictures("noise", x, y, x, y)


@pytest.fixture(scope="session")
def twin(marked):
    """A network of the same architecture with random weights and without a mark."""
    model = published_copy(marked.model)
    rng = np.random.default_rng(5)
    for variable in model.weights:
        variable.assign(0.1 * rng.normal(size=variable.shape))
    return model


@pytest.fixture(scope="session")
def evaluation(marked, pictures, twin):
    """The marked network's report, from four attacks at two strengths."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        patch.setattr(evaluator, "all_families", lambda layer: FAMILIES)
        return evaluate(
            marked.files[".keras"],
            marked.key,
            pictures,
            baseline=twin,
            unmarked=[twin],
            strengths=2,
        )
