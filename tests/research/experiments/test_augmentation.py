"""Augmented pictures, compared with SciPy and with plain indexing."""

import keras
import numpy as np
import pytest
from scipy import ndimage

from keras_wm.research.experiments.augmentation import Augmentation, AugmentedBatches

pytestmark = pytest.mark.backends

NOTHING = {"rotation": 0.0, "translation": 0.0, "flip": False}


def augmented(pictures, seed=0, **limits):
    augmentation = Augmentation(**{**NOTHING, **limits})
    rng = np.random.default_rng(seed)
    return keras.ops.convert_to_numpy(augmentation.apply(pictures, rng))


@pytest.fixture
def pictures(rng):
    return rng.normal(size=(40, 9, 9, 2)).astype(np.float32)


def test_without_any_distortion_pictures_do_not_change(pictures):
    np.testing.assert_allclose(augmented(pictures), pictures, atol=1e-6)


def test_half_of_the_pictures_are_flipped(pictures):
    result = augmented(pictures, flip=True)
    flipped = np.isclose(result, pictures[:, :, ::-1], atol=1e-6).all(axis=(1, 2, 3))
    same = np.isclose(result, pictures, atol=1e-6).all(axis=(1, 2, 3))
    assert (flipped ^ same).all()
    # Fewer than 8 or more than 32 of 40: one in 10^4 seeds, and the seed is fixed.
    assert 8 <= flipped.sum() <= 32


def test_pictures_shift_by_up_to_the_given_share_and_their_edges_are_repeated():
    slope = np.tile(np.arange(20, dtype=np.float32)[None, :, None], (20, 1, 1))
    shifted = augmented(np.stack([slope] * 100), translation=0.25)
    # On a slope, a shift by d changes the values by d, except at the edges.
    change = shifted[:, 5, 10, 0] - slope[5, 10, 0]
    assert np.abs(change).max() <= 5
    # All 100 shifts are within four fifths: one in 10^9 seeds.
    assert np.abs(change).max() > 4
    inside = np.clip(slope[None, ..., 0] + change[:, None, None], 0, 19)
    np.testing.assert_allclose(shifted[..., 0], inside, atol=1e-4)


def test_a_rotation_is_that_of_scipy_about_the_centre():
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
    rotated = augmented(np.stack([picture] * 50), rotation=30.0)[..., 0]
    distance = np.abs(rotated[:, None] - candidates[None]).max(axis=(2, 3))
    assert distance.min(axis=1).max() < 0.02
    nearest = angles[distance.argmin(axis=1)]
    # None of 50 rotations is beyond 15 degrees on one side: one in 10^6 seeds.
    assert nearest.min() < -15 and nearest.max() > 15


def test_an_epoch_has_every_picture_once_with_its_target():
    x = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * np.ones((1, 4, 4, 1))
    batches = AugmentedBatches(
        x.astype(np.float32), 7 * np.arange(10), 4, 0, Augmentation(**NOTHING)
    )
    epochs = []
    for _ in range(2):
        epoch = [batches[index] for index in range(len(batches))]
        assert [len(pictures) for pictures, _ in epoch] == [4, 4, 2]
        for pictures, targets in epoch:
            np.testing.assert_allclose(7 * pictures[:, 0, 0, 0], targets, atol=1e-4)
        epochs.append(np.concatenate([targets for _, targets in epoch]).tolist())
        batches.on_epoch_end()
    assert sorted(epochs[0]) == sorted(epochs[1]) == [7 * index for index in range(10)]
    assert epochs[0] != epochs[1]


def test_order_and_augmentation_follow_the_seed(pictures):
    y = np.arange(len(pictures))
    first, same, other = (
        AugmentedBatches(pictures, y, 40, seed, Augmentation())[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first[0], same[0])
    np.testing.assert_array_equal(first[1], same[1])
    assert (first[1] != other[1]).any()
