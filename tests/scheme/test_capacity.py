"""Capacity of kernels, compared with the formulas written out here."""

import numpy as np
import pytest

from keras_wm.scheme.capacity import share, unseen_bits, unseen_margin
from tests.conftest import fixed_key


def test_the_margin_is_four_if_there_is_room():
    assert unseen_margin(64, "keyed", 1152, 128) == 4


@pytest.mark.parametrize(("bits", "m", "count"), [(256, 576, 64), (1024, 1152, 128)])
def test_the_margin_follows_the_room(bits, m, count):
    expected = 0.17 * np.sqrt(m * count / bits)
    assert unseen_margin(bits, "keyed", m, count) == pytest.approx(expected)


@pytest.mark.parametrize(("m", "count"), [(576, 64), (1152, 128), (40, 24)])
def test_the_margin_of_a_recipients_mark_is_larger(m, count):
    margin = unseen_margin(64, "blocks", m, count)
    assert margin == pytest.approx(min(8, 0.25 * np.sqrt(m * count / 64)))
    assert margin > unseen_margin(64, "keyed", m, count)
    assert share(64, "blocks", m, count, margin) <= 0.25 + 1e-9


def test_the_unseen_bits_take_the_unseen_share():
    bits = unseen_bits("keyed", 576, 64)
    assert bits == int(576 * 64 * (0.17 / 4) ** 2)
    assert share(bits, "keyed", 576, 64, 4) <= 0.17
    assert share(bits + 1, "keyed", 576, 64, 4) > 0.17


def test_the_mean_filter_has_less_room_than_the_kernel():
    assert unseen_bits("mean", 576, 64) < unseen_bits("keyed", 576, 64)


def test_the_share_is_that_of_the_mark_of_least_norm(rng):
    """Adds the smallest change that gives every bit a score of m, and measures it."""
    m, count, bits, margin = 400, 60, 32, 4.0
    mark = fixed_key(bits).for_shape((m, count))
    kernel = rng.normal(size=(m, count))
    rows = [
        np.outer(mark.matrix[j], mark.filter_weights[j]).ravel() for j in range(bits)
    ]
    target = margin * mark.signs * np.sqrt(m * count)
    change = np.linalg.pinv(np.array(rows)) @ target
    measured = np.linalg.norm(change) / np.linalg.norm(kernel)
    assert measured == pytest.approx(share(bits, "keyed", m, count, margin), rel=0.1)
