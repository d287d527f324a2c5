"""What the layers of the effective model have in common: a weight for each shell."""

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
    """Which sites are in each other's shells.

    Args:
        lattice: Where the sites are.
        squared_distances: Those of the shells.

    Returns:
        Shape `(shells, N, N)`.

    Raises:
        ValueError: If the lattice has no shell at one of the distances.
    """
    pairs = {shell.squared_distance: shell.pairs for shell in lattice.shells}
    missing = [each for each in squared_distances if each not in pairs]
    if missing:
        raise ValueError(
            f"Expected shells of a lattice of {' x '.join(map(str, lattice.extent))} "
            f"sites, whose squared distances are {sorted(pairs)}. Received also: "
            f"{missing}. Take a larger lattice, or a model of fewer shells."
        )
    return np.stack([pairs[each] for each in squared_distances])


class ShellLayer(keras.layers.Layer):
    """A layer that weighs the neighbours of a site by how far they are.

    Its weights belong to distances, not to sites: a layer of the same distances on
    another lattice takes them as they are.

    Args:
        extent: L_x and L_y, of a lattice with periodic boundaries.
        squared_distances: Those of the shells that are seen, besides the site itself.
        kernel_regularizer: Of the weights, such as a `WatermarkRegularizer`.
        **kwargs: What every Keras layer takes.

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
                f"Expected spins of the shape (batch, {sites}, 3). "
                f"Received: input_shape={tuple(input_shape)}"
            )
        super().build(input_shape)

    def pairs(self) -> Any:
        """Which sites are in each other's shells, a tensor `(shells, N, N)`."""
        return ops.convert_to_tensor(self._pairs, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "extent": self.extent,
            "squared_distances": self.squared_distances,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
