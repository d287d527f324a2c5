"""A strong L2 penalty, and fine-tuning without it."""

import numpy as np
import pytest

from keras_wm.research.attacks import regularization
from keras_wm.research.attacks.regularization import REGULARIZATION
from tests.research.attacks.trained import MARKED, PICTURES, arrays, network

pytestmark = pytest.mark.usefixtures("short")


def norm(model, layer=MARKED):
    return np.linalg.norm(arrays(model)[f"{layer}/kernel"])


@pytest.mark.backends
def test_a_stronger_penalty_leaves_smaller_kernels():
    model = network()
    weak, strong = (
        norm(REGULARIZATION(model, PICTURES, factor)) for factor in (0.001, 0.1)
    )
    # Twelve steps of a rate of 0.01 take 0.002 each, and momentum several times more.
    assert strong < 0.97 * weak
    assert weak > 0.98 * norm(model)


def test_the_networks_own_penalties_are_back_after_it(monkeypatch):
    factors = []

    def watched(model, data, rate):
        factors.append(
            {
                layer.name: layer.kernel.regularizer
                and float(layer.kernel.regularizer.l2)
                for layer in model.layers
                if hasattr(layer, "kernel")
            }
        )

    monkeypatch.setattr(regularization, "train", watched)
    REGULARIZATION(network(), PICTURES, 0.05)
    own = pytest.approx(0.01)
    assert factors[0] == {
        layer: pytest.approx(0.05) for layer in ("one", MARKED, "four")
    }
    assert factors[1] == {"one": own, MARKED: None, "four": None}
