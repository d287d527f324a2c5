"""A mark with an anchor changes the energy of no band of the inputs' directions."""

import keras
import numpy as np
import pytest
from scipy import stats

from keras_wm import WatermarkRegularizer, detect
from keras_wm.embedding.loss.bands import Bands
from keras_wm.embedding.loss.kernel_projection import without_capacity_warnings
from keras_wm.embedding.loss.moments import corrected
from keras_wm.scheme.anchor import Anchor
from tests.conftest import fixed_key
from tests.models import compiled_gradient

INPUTS, DIRECTIONS, FILTERS = 24, 7, 32
# The first direction, the second, two more, and what is left of four more.
BANDS = ([0], [1], [2, 3], [4, 5, 6])


def made_anchor(before, after):
    rng = np.random.default_rng(5)
    directions, _ = np.linalg.qr(rng.normal(size=(INPUTS, DIRECTIONS)))
    return Anchor(rng.uniform(0.5, 4, DIRECTIONS), directions, before, after)


def projectors(anchor):
    """Returns the matrix that projects a kernel to each band, by descending gain."""
    order = np.argsort(-anchor.gains)
    along = [
        anchor.directions[:, order[band]] @ anchor.directions[:, order[band]].T
        for band in BANDS
    ]
    every = [*along, np.eye(INPUTS) - sum(along)]
    before, after = np.eye(anchor.before), np.eye(anchor.after)
    return [np.kron(before, np.kron(part, after)) for part in every]


@pytest.mark.backends
@pytest.mark.parametrize("keep_mean_filter", [True, False])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 3)])
def test_the_noise_of_a_mark_is_removed_from_each_band_by_its_share(
    before, after, keep_mean_filter, rng
):
    anchor, noise = made_anchor(before, after), 0.7
    size = before * INPUTS * after
    kernel = rng.standard_t(9, size=(size, FILTERS))
    gradient = rng.normal(size=kernel.shape)
    result = keras.ops.convert_to_numpy(
        corrected(
            *(
                keras.ops.convert_to_tensor(np.float32(array))
                for array in (gradient, noise, kernel)
            ),
            keep_mean_filter,
            Bands(anchor, size),
        )
    )
    gains = np.sort(anchor.gains)[::-1]
    energies = [np.sum((1 + gains[band]) ** 2) for band in BANDS]
    energies.append(INPUTS - DIRECTIONS)
    for part, energy in zip(projectors(anchor), energies, strict=True):
        expected = noise * energy / sum(energies)
        assert np.sum(result * (part @ kernel)) == pytest.approx(expected, abs=0.02)
    # The noise of each weight, of a mark that is read through A, is diag(A A).
    matrix = np.kron(
        np.eye(before),
        np.kron(
            np.eye(INPUTS)
            + anchor.directions @ np.diag(anchor.gains) @ anchor.directions.T,
            np.eye(after),
        ),
    )
    rows = np.diag(matrix @ matrix)
    for power in (3, 5):
        mean = np.mean(rows[:, None] / rows.mean() * kernel ** (power - 1))
        change = np.sum(result * kernel**power)
        unit = np.linalg.norm(kernel**power) * np.linalg.norm(gradient)
        assert abs(change - noise * power * mean) < 1e-3 * unit
    if keep_mean_filter:
        np.testing.assert_allclose(
            result.mean(axis=-1), gradient.mean(axis=-1), atol=1e-4
        )


@pytest.mark.backends
@pytest.mark.parametrize("filled", [0, 1, 2], ids=["zeros", "one direction", "rest"])
def test_bands_without_weights_are_left_out(filled, rng):
    anchor = made_anchor(1, 1)
    along = anchor.directions[:, :1] @ rng.normal(size=(1, FILTERS))
    rest = projectors(anchor)[-1] @ rng.normal(size=(INPUTS, FILTERS))
    kernel = (0 * rest, along, rest)[filled].astype(np.float32)
    regularizer = WatermarkRegularizer(
        fixed_key(8).with_anchor(anchor), strength=1.0, margin=1.0
    )
    with without_capacity_warnings():
        gradient = compiled_gradient(regularizer)(kernel)
    assert np.isfinite(gradient).all()
    assert gradient.any()


def test_embedded_marks_have_changed_the_energy_of_no_band(rng):
    """Over four keys, because what a single mark adds along a direction is random."""
    size, filters, count, keys = 288, 64, 32, 4
    edges = [(0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (0, size)]
    changes = []
    for owner in map(str, range(keys)):
        directions, _ = np.linalg.qr(rng.normal(size=(size, size)))
        # From 31, which the default uses at most, to 0.
        gains = np.sqrt(np.geomspace(32, 1, count)) - 1
        key = fixed_key(64, owner=owner).with_anchor(
            Anchor(gains, directions[:, :count])
        )
        start = stats.truncnorm.rvs(-2, 2, size=(size, filters), random_state=rng)
        regularizer = WatermarkRegularizer(key, strength=1e-4, margin=2.8)
        gradient = compiled_gradient(regularizer)
        kernel, velocity = start.astype("float32"), np.zeros_like(start, "float32")
        for _ in range(160):
            velocity = 0.9 * velocity - 0.1 * 300 * gradient(kernel)
            kernel = (kernel + velocity).astype("float32")
        assert detect(kernel, key).z.min() > 2
        energies = (np.sum((directions.T @ w) ** 2, 1) for w in (kernel, start))
        now, before = ([part[slice(*e)].sum() for e in edges] for part in energies)
        changes.append(np.divide(now, before) - 1)
    # With the total energy held alone, they have 74, 36, 64, 36 and 13 % more.
    assert np.abs(np.mean(changes, axis=0)).max() < 0.25
    assert np.abs(np.mean(changes, axis=0))[4:].max() < 0.05
