"""Merging a network with others that are fine-tuned from it."""

from itertools import combinations

import keras
import numpy as np
import pytest
from keras import layers

from keras_wm.research.attacks import merging
from keras_wm.research.attacks.merging import LORA, SOUP, TASK_ARITHMETIC
from tests.research.attacks.trained import MARKED, PICTURES, arrays, changed, network

pytestmark = pytest.mark.study


def kernel(model):
    return np.asarray(model.get_layer(MARKED).kernel)


@pytest.mark.usefixtures("one_epoch")
def test_task_arithmetic_moves_along_the_change():
    model = network()
    half, whole, three = (
        kernel(TASK_ARITHMETIC(model, PICTURES, factor)) for factor in (0.5, 1.0, 3.0)
    )
    change = whole - kernel(model)
    assert np.abs(change).max() > 1e-3
    np.testing.assert_allclose(half, kernel(model) + change / 2, atol=1e-6)
    np.testing.assert_allclose(three, kernel(model) + 3 * change, atol=1e-5)


@pytest.mark.usefixtures("one_epoch")
def test_a_soup_is_the_mean_of_copies_that_differ(monkeypatch):
    model, averaged = network(), []

    def average(models):
        averaged.extend(models)
        return combine(models)

    combine = merging.average
    monkeypatch.setattr(merging, "average", average)
    soup = kernel(SOUP(model, PICTURES, 4))
    kernels = [kernel(copy) for copy in [model, *averaged]]
    assert len(averaged) == 4
    for first, second in combinations(kernels, 2):
        assert not np.allclose(first, second)
    np.testing.assert_allclose(soup, np.mean(kernels[1:], axis=0), atol=1e-6)


@pytest.mark.usefixtures("one_epoch")
@pytest.mark.parametrize("rank", [1, 4])
def test_lora_changes_kernels_by_matrices_of_its_rank(rank):
    model = network()
    before = arrays(model)
    attacked = LORA(model, PICTURES, rank)
    after = arrays(attacked)
    assert set(after) == set(before)
    # A bias is trained as well, but the normalization is not.
    kernels = {"one/kernel", "three/kernel", "four/kernel"}
    assert changed(attacked, before) == kernels | {"four/bias"}
    change = after[f"{MARKED}/kernel"] - before[f"{MARKED}/kernel"]
    assert np.linalg.matrix_rank(change.reshape(-1, 16), tol=1e-6) == rank


def test_lora_needs_layers_that_can_have_factors():
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.BatchNormalization()],
        name="plain",
    )
    with pytest.raises(ValueError, match=r"LoRA factors.*'plain', which has none"):
        LORA(model, PICTURES, 1)
