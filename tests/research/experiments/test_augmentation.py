"""Pictures that are turned, shifted and mirrored, against SciPy and plain indexing."""

import keras
import numpy as np
import pytest
from scipy import ndimage

from keras_wm.research.experiments.augmentation import Distorted, Distortion

pytestmark = pytest.mark.backends

STILL = {"turn": 0.0, "shift": 0.0, "mirror": False}


def distorted(pictures, seed=0, **distortion):
    made = Distortion(**{**STILL, **distortion})
    return keras.ops.convert_to_numpy(made.of(pictures, np.random.default_rng(seed)))


@pytest.fixture
def pictures(rng):
    return rng.normal(size=(40, 9, 9, 2)).astype(np.float32)


def test_without_any_distortion_pictures_stay(pictures):
    np.testing.assert_allclose(distorted(pictures), pictures, atol=1e-6)


def test_half_of_the_pictures_are_mirrored(pictures):
    found = distorted(pictures, mirror=True)
    mirrored = np.isclose(found, pictures[:, :, ::-1], atol=1e-6).all(axis=(1, 2, 3))
    same = np.isclose(found, pictures, atol=1e-6).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    # Fewer than 8 or more than 32 of 40: once in 10^4 seeds, and the seed is fixed.
    assert 8 <= mirrored.sum() <= 32


def test_a_shift_moves_pictures_by_up_to_its_share_and_repeats_their_edges():
    slope = np.tile(np.arange(20, dtype=np.float32)[None, :, None], (20, 1, 1))
    shifted = distorted(np.stack([slope] * 100), shift=0.25)
    # On a slope, a shift of d is a change by d, up to the edges.
    change = shifted[:, 5, 10, 0] - slope[5, 10, 0]
    assert np.abs(change).max() <= 5
    # All of 100 within four fifths: once in 10^9 seeds.
    assert np.abs(change).max() > 4
    inside = np.clip(slope[None, ..., 0] + change[:, None, None], 0, 19)
    np.testing.assert_allclose(shifted[..., 0], inside, atol=1e-4)


def test_a_turn_is_scipys_about_the_middle():
    y, x = np.mgrid[:21, :21] - 10.0
    picture = np.exp(-((x - 3) ** 2 + (y + 2) ** 2) / 20)[..., None].astype(np.float32)
    angles = np.linspace(-30, 30, 121)
    candidates = np.stack(
        [
            ndimage.rotate(
                picture[..., 0], angle, reshape=False, order=1, mode="nearest"
            )
            for angle in angles
        ]
    )
    turned = distorted(np.stack([picture] * 50), turn=30.0)[..., 0]
    distance = np.abs(turned[:, None] - candidates[None]).max(axis=(2, 3))
    assert distance.min(axis=1).max() < 0.02
    found = angles[distance.argmin(axis=1)]
    # No turn of 50 beyond 15 degrees to one of the sides: once in 10^6 seeds.
    assert found.min() < -15 and found.max() > 15


def test_an_epoch_has_every_picture_once_with_its_target():
    x = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * np.ones((1, 4, 4, 1))
    batches = Distorted(
        x.astype(np.float32), 7 * np.arange(10), 4, 0, Distortion(**STILL)
    )
    epochs = []
    for _ in range(2):
        found = [batches[index] for index in range(len(batches))]
        assert [len(pictures) for pictures, _ in found] == [4, 4, 2]
        for pictures, targets in found:
            np.testing.assert_allclose(7 * pictures[:, 0, 0, 0], targets, atol=1e-4)
        epochs.append(np.concatenate([targets for _, targets in found]).tolist())
        batches.on_epoch_end()
    assert sorted(epochs[0]) == sorted(epochs[1]) == [7 * one for one in range(10)]
    assert epochs[0] != epochs[1]


def test_order_and_distortion_follow_the_seed(pictures):
    y = np.arange(len(pictures))
    one, same, other = (
        Distorted(pictures, y, 40, seed, Distortion())[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one[0], same[0])
    np.testing.assert_array_equal(one[1], same[1])
    assert (one[1] != other[1]).any()
