"""Base class of the effective model's layers, with one weight per shell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_wm.slmc.lattice import Lattice, square_lattice


def shell_pairs(
    lattice: Lattice, squared_distances: Sequence[int]
) -> NDArray[np.bool_]:
    """Returns the pairs of sites in each of several shells.

    Args:
        lattice: Lattice of the sites.
        squared_distances: Squared distances of the shells.

    Returns:
        Whether two sites are in a shell, shape `(shells, N, N)`.

    Raises:
        ValueError: If the lattice has no shell at one of the distances.
    """
    pairs = {shell.squared_distance: shell.pairs for shell in lattice.shells}
    missing = [distance for distance in squared_distances if distance not in pairs]
    if missing:
        raise ValueError(
            f"Expected shells of a lattice of {' x '.join(map(str, lattice.extent))} "
            f"sites, whose squared distances are {sorted(pairs)}. Received also: "
            f"{missing}. Use a larger lattice, or a model with fewer shells."
        )
    return np.stack([pairs[distance] for distance in squared_distances])


class ShellLayer(keras.layers.Layer):
    """Layer whose weights depend on the distance between two sites only.

    The weights belong to shells, not to sites. They therefore fit a layer with the same
    shells on any other lattice.

    Args:
        extent: Numbers of sites L_x and L_y of a lattice with periodic boundaries.
        squared_distances: Squared distances of the shells, without the site itself.
        kernel_regularizer: Regularizer of the kernel, such as a `WatermarkRegularizer`.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: If the lattice has no shell at one of the distances.
    """

    def __init__(
        self,
        extent: Sequence[int],
        squared_distances: Sequence[int],
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.extent = tuple(extent)
        self.squared_distances = tuple(squared_distances)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self._pairs = shell_pairs(square_lattice(*self.extent), self.squared_distances)

    def build(self, input_shape: Sequence[int | None]) -> None:
        sites = self._pairs.shape[-1]
        if tuple(input_shape[1:]) != (sites, 3):
            raise ValueError(
                f"Expected spins of shape (batch, {sites}, 3). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        super().build(input_shape)

    def pairs(self) -> Any:
        """Returns 1 for the pairs of sites in each shell, a tensor `(shells, N, N)`."""
        return ops.convert_to_tensor(self._pairs, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "extent": self.extent,
            "squared_distances": self.squared_distances,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
