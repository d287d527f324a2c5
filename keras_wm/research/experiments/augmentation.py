"""Pictures that are turned, shifted and mirrored a little, anew in each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@dataclass(frozen=True)
class Distortion:
    """How far pictures are distorted at most.

    The defaults are those of the papers' reference code: turns by 10 degrees, shifts by
    5 pixels of 32, half of the pictures mirrored.

    Attributes:
        turn: The largest angle, in degrees.
        shift: The largest shift, as a share of the width and height.
        mirror: Whether left and right may be exchanged.
    """

    turn: float = 10.0
    shift: float = 5 / 32
    mirror: bool = True

    def of(self, pictures: Any, rng: np.random.Generator) -> Any:
        """Distorts pictures, each by its own amount; edges are repeated outwards.

        Args:
            pictures: Tensor of shape `(N, height, width, channels)`.
            rng: Where chance comes from.

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
        """Rows (a, b, c, d, e, f, 0, 0): where in the picture (x, y) is taken from.

        It is taken from (a x + b y + c, d x + e y + f).
        """
        height, width = size
        angle = np.deg2rad(rng.uniform(-self.turn, self.turn, count))
        sign = rng.choice([-1.0, 1.0], count) if self.mirror else np.ones(count)
        cosine, sine = np.cos(angle), np.sin(angle)
        a, b, d, e = sign * cosine, -sine, sign * sine, cosine
        # About the middle of the picture, then shifted.
        x, y = (width - 1) / 2, (height - 1) / 2
        c = x - a * x - b * y + width * rng.uniform(-self.shift, self.shift, count)
        f = y - d * x - e * y + height * rng.uniform(-self.shift, self.shift, count)
        zeros = np.zeros(count)
        return np.stack([a, b, c, d, e, f, zeros, zeros], axis=1).astype(np.float32)


class Distorted(keras.utils.PyDataset):
    """Batches of pictures and targets, in another order each epoch, and distorted.

    Args:
        x: Pictures, shape `(N, height, width, channels)`.
        y: Targets, of length N.
        batch: How many a batch.
        seed: Of order and distortion.
        distortion: How the pictures are distorted.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        batch: int,
        seed: int,
        distortion: Distortion,
    ) -> None:
        super().__init__()
        self._x, self._y, self._batch = x, y, batch
        self._distortion = distortion
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self._x) // self._batch)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rows = self._order[index * self._batch : (index + 1) * self._batch]
        distorted = self._distortion.of(self._x[rows], self._rng)
        return ops.convert_to_numpy(distorted), self._y[rows]

    def on_epoch_end(self) -> None:
        """Shuffles."""
        self._order = self._rng.permutation(len(self._x))
