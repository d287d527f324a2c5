"""Training with a strong L2 penalty, then without it."""

import numpy as np
import pytest

from keras_wm.research.attacks import fine_tuning
from keras_wm.research.attacks.fine_tuning import REGULARIZATION
from tests.research.attacks.trained import MARKED, PICTURES, arrays, network


def norm(model):
    return np.linalg.norm(arrays(model)[f"{MARKED}/kernel"])


@pytest.mark.backends
def test_a_stronger_penalty_leaves_smaller_kernels(one_epoch):
    model = network()
    weak, strong = (
        norm(REGULARIZATION(model, PICTURES, factor)) for factor in (0.001, 0.1)
    )
    # Each of four steps at a rate of 0.01 shrinks the kernel by 0.2 %, and momentum
    # about doubles that: 1.6 % are measured.
    assert strong < 0.99 * weak
    assert weak > 0.98 * norm(model)


def test_the_networks_own_penalties_are_restored(monkeypatch):
    factors = []

    def record_factors(model, data, rate):
        factors.append(
            {
                layer.name: layer.kernel.regularizer
                and float(layer.kernel.regularizer.l2)
                for layer in model.layers
                if hasattr(layer, "kernel")
            }
        )

    monkeypatch.setattr(fine_tuning, "train", record_factors)
    REGULARIZATION(network(), PICTURES, 0.05)
    first, second = factors
    assert first == dict.fromkeys(("one", MARKED, "four"), pytest.approx(0.05))
    assert second == {"one": pytest.approx(0.01), MARKED: None, "four": None}
