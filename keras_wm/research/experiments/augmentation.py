"""Augmentation of training pictures: random rotation, translation and flip.

Keras has `RandomRotation`, `RandomTranslation` and `RandomFlip` layers for this. The
recorded experiments were trained with the pictures that this module makes. Replace it
only when those experiments are run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@dataclass(frozen=True)
class Augmentation:
    """Limits of the random distortion of pictures.

    The defaults are those of the papers' reference code: rotation by up to 10 degrees,
    translation by up to 5 of 32 pixels, and a flip with probability one half.

    Attributes:
        rotation: Largest angle, in degrees.
        translation: Largest shift, as a share of the width and of the height.
        flip: Whether to exchange left and right in half of the pictures.
    """

    rotation: float = 10.0
    translation: float = 5 / 32
    flip: bool = True

    def apply(self, pictures: Any, rng: np.random.Generator) -> Any:
        """Returns the pictures, each with its own random distortion.

        Pixels from outside the picture take the value of the nearest edge.

        Args:
            pictures: Tensor of shape `(N, height, width, channels)`.
            rng: Random number generator.

        Returns:
            Tensor of the same shape.
        """
        transforms = self._transforms(len(pictures), pictures.shape[1:3], rng)
        return ops.image.affine_transform(
            pictures, ops.convert_to_tensor(transforms), fill_mode="nearest"
        )

    def _transforms(
        self, count: int, size: tuple[int, int], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Returns one row (a, b, c, d, e, f, 0, 0) for each picture.

        The output pixel (x, y) is read from the input at
        (a x + b y + c, d x + e y + f).
        """
        height, width = size
        angle = np.deg2rad(rng.uniform(-self.rotation, self.rotation, count))
        sign = rng.choice([-1.0, 1.0], count) if self.flip else np.ones(count)
        cosine, sine = np.cos(angle), np.sin(angle)
        a, b, d, e = sign * cosine, -sine, sign * sine, cosine
        # Rotate about the centre of the picture, then translate.
        x, y = (width - 1) / 2, (height - 1) / 2
        shift = self.translation
        c = x - a * x - b * y + width * rng.uniform(-shift, shift, count)
        f = y - d * x - e * y + height * rng.uniform(-shift, shift, count)
        zeros = np.zeros(count)
        return np.stack([a, b, c, d, e, f, zeros, zeros], axis=1).astype(np.float32)


class AugmentedBatches(keras.utils.PyDataset):
    """Batches of augmented pictures with their targets, in a new order each epoch.

    Args:
        x: Pictures, shape `(N, height, width, channels)`.
        y: Targets, length N.
        batch: Number of pictures in a batch.
        seed: Random seed of the order and of the augmentation.
        augmentation: Limits of the distortion.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        batch: int,
        seed: int,
        augmentation: Augmentation,
    ) -> None:
        super().__init__()
        self._x, self._y, self._batch = x, y, batch
        self._augmentation = augmentation
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._x) // self._batch)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rows = self._order[index * self._batch : (index + 1) * self._batch]
        pictures = self._augmentation.apply(self._x[rows], self._rng)
        return ops.convert_to_numpy(pictures), self._y[rows]

    def on_epoch_end(self) -> None:
        """Shuffles the pictures."""
        self._order = self._rng.permutation(len(self._x))
