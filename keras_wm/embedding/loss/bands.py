r"""Parts of a kernel along bands of an anchor's directions.

A mark that is read through an anchor adds more weight along the directions that the
inputs have most. To anyone who measures the inputs, this shows in the kernel's energy
along them. So this energy is held band by band: the first direction, the second, the
next two, the next four and so on, and what lies along no direction of the anchor.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from keras_wm.embedding.loss.constants import outside_of_graphs
from keras_wm.scheme.anchor import Anchor
from keras_wm.utils.arrays import Floats


class Bands:
    """The bands of an anchor's directions; without an anchor, a single band of all.

    A matrix has the shape `(M, n)`. Its coordinates have the shape `(before, r, k)`,
    with r directions on the second axis; without an anchor, they are `None`.

    Args:
        anchor: The anchor, or `None`.
        size: M, the weights per filter.

    Attributes:
        shares: Share of the noise that a mark adds along each band, shape `(B,)`.
        row_shares: Share of the noise in each row of a kernel, with a mean of 1, shape
            `(M,)`.
    """

    def __init__(self, anchor: Anchor | None, size: int) -> None:
        self._anchor = anchor
        self.shares: Floats = np.ones(1)
        self.row_shares: Floats = np.ones(size)
        if anchor is None:
            return
        order = np.argsort(-anchor.gains, kind="stable")
        # 0 for the first direction, 1 for the second, 2 for two more, 3 for four more.
        band_of = np.empty(len(order), int)
        band_of[order] = np.ceil(np.log2(np.arange(1, len(order) + 1)))
        self._members = np.eye(band_of.max() + 1)[:, band_of]
        inputs = len(anchor.directions)
        energies = np.square(1 + anchor.gains)
        along = self._members @ energies
        self.shares = np.append(along, max(inputs - len(order), 0))
        self.shares /= self.shares.sum()
        rows = 1 + np.square(anchor.directions) @ (energies - 1)
        rows = np.broadcast_to(
            rows[:, None], (anchor.before, inputs, anchor.after)
        ).reshape(-1)
        self.row_shares = rows / rows.mean()

    @cached_property
    def _directions(self) -> Any:
        assert self._anchor is not None  # noqa: S101 (for the type checker)
        return outside_of_graphs(self._anchor.directions.astype(np.float32))

    def coordinates(self, matrix: Any) -> Any:
        """Returns the coordinates of a matrix along the directions."""
        if self._anchor is None:
            return None
        lengths = self._anchor.before, len(self._anchor.directions)
        directions = ops.cast(self._directions, matrix.dtype)
        by_input = ops.reshape(matrix, (*lengths, -1))
        return ops.matmul(ops.transpose(directions), by_input)

    def along(self, coordinates: Any, shape: tuple[int, ...]) -> Any:
        """Returns the matrix of a shape that has some coordinates and nothing else."""
        directions = ops.cast(self._directions, coordinates.dtype)
        return ops.reshape(ops.matmul(directions, coordinates), shape)

    def anchored(self, matrix: Any) -> Any:
        """Returns A times a matrix, as `Anchor.applied` does."""
        if self._anchor is None:
            return matrix
        gains = ops.reshape(ops.cast(self._anchor.gains, matrix.dtype), (-1, 1))
        along = gains * self.coordinates(matrix)
        return matrix + ops.cast(self.along(along, matrix.shape), matrix.dtype)

    def products(self, total: Any, first: Any, second: Any) -> Any:
        """Returns the scalar product of two matrices along each band, shape `(B,)`.

        Args:
            total: The scalar product of the whole matrices.
            first: Coordinates of the first matrix.
            second: Coordinates of the second matrix.
        """
        if self._anchor is None:
            return ops.reshape(total, (1,))
        members = ops.cast(self._members, first.dtype)
        by_direction = ops.sum(first * second, axis=(0, 2))
        along = ops.sum(members * by_direction, axis=1)
        return ops.append(along, total - ops.sum(along))

    def with_factors(self, matrix: Any, coordinates: Any, factors: Any) -> Any:
        """Returns a matrix plus coordinates times their band's factor.

        The factor of the last band, what lies along no direction, is in the matrix
        already. So it is subtracted from the others.

        Args:
            matrix: Matrix of shape `(M, n)`.
            coordinates: Coordinates of a matrix of this shape.
            factors: Shape `(B,)`.
        """
        if self._anchor is None:
            return matrix
        members = ops.cast(np.transpose(self._members), factors.dtype)
        differences = ops.sum(members * (factors[:-1] - factors[-1]), axis=1)
        along = ops.reshape(differences, (-1, 1)) * coordinates
        return matrix + ops.cast(self.along(along, matrix.shape), matrix.dtype)
