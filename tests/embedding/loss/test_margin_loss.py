"""The margin loss of a large kernel: a random part of the steps, and more in each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_wm import WatermarkRegularizer
from keras_wm.embedding.loss import margin_loss
from tests.conftest import fixed_key
from tests.models import compiled_gradient, expected_scores

SHAPE, BITS = (32, 64), 32
INTERVAL = 8


@pytest.fixture
def large_kernels(monkeypatch):
    """Lets kernels of this small shape count as large."""
    monkeypatch.setattr(margin_loss, "_EVERY_STEP", np.prod(SHAPE) / INTERVAL)


def gradient_of(strength=1.0):
    return compiled_gradient(WatermarkRegularizer(fixed_key(BITS), strength=strength))


@given(weights=st.integers(1, 2**40))
def test_a_step_costs_as_much_on_average_up_to_a_longest_interval(weights):
    interval = margin_loss.steps_between(weights)
    # The choice is made by a number below 1024, so 1024 / k is rounded.
    assert interval == pytest.approx(np.clip(weights / 2**17, 1, 8), rel=8 / 2048)
    assert (1024 / interval) == pytest.approx(round(1024 / interval), abs=1e-9)


@pytest.mark.study
@pytest.mark.backends
def test_the_loss_comes_in_one_of_k_steps_and_its_mean_square_is_the_same(
    large_kernels, rng
):
    kernel = rng.normal(size=SHAPE).astype("float32")
    gradient = gradient_of()
    changed = kernel.copy()
    several = []
    for _ in range(200):
        # The smallest change that there is, of one weight.
        changed[16, 16] = np.nextafter(changed[16, 16], np.float32(9))
        several.append(gradient(changed))
    with_loss = [g for g in several if np.count_nonzero(g) > 1]
    # 25 +- 4.7 are expected: five standard deviations, a false alarm in 10^6.
    assert 2 <= len(with_loss) <= 48
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(margin_loss, "_EVERY_STEP", np.inf)
        in_every_step = gradient_of()(changed)
    np.testing.assert_allclose(with_loss[-1], INTERVAL**0.5 * in_every_step, rtol=1e-3)


@pytest.mark.study
@pytest.mark.backends
def test_the_same_weights_make_the_same_choice(large_kernels, rng):
    gradient = gradient_of()
    for _ in range(20):
        kernel = rng.normal(size=SHAPE).astype("float32")
        np.testing.assert_array_equal(gradient(kernel), gradient(kernel))


@pytest.mark.study
@pytest.mark.backends
def test_a_kernel_that_the_task_does_not_change_is_marked_all_the_same(
    large_kernels, rng
):
    """A step without the loss moves one weight, or all later ones would be too."""
    kernel = 0.05 * rng.normal(size=SHAPE).astype("float32")
    gradient, before = gradient_of(strength=1e-3), kernel.copy()
    for _ in range(400):
        kernel = kernel - np.float32(0.1) * gradient(kernel)
    unseen = 0.17 * np.sqrt(np.prod(SHAPE) / BITS)
    assert expected_scores(kernel, fixed_key(BITS)).min() > 0.5 * unseen
    assert np.abs(kernel - before).max() < before.std()


@pytest.mark.backends
def test_a_small_kernel_gets_the_loss_in_every_step(rng):
    gradient = gradient_of()
    for _ in range(20):
        assert np.count_nonzero(gradient(rng.normal(size=SHAPE).astype("float32"))) > 1
