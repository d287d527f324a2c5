"""Self-attention that is equivariant under spin rotations and lattice symmetries.

`ShellLayer` is the base class of all layers of an effective model.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_wm.slmc.lattice import Lattice, square_lattice


def shell_pairs(
    lattice: Lattice, squared_distances: Sequence[int]
) -> NDArray[np.bool_]:
    """Returns whether two sites are in each of several shells, `(shells, N, N)`.

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


@keras.saving.register_keras_serializable(package="keras_wm")
class ZeroValueInitializer(keras.initializers.Initializer):
    """Normal weights for queries and keys, zero weights for values.

    A block with these weights is the identity and can be added to a trained model.
    Small nonzero values would not do: in an ordered configuration the contributions of
    all sites add up.

    Args:
        scale: Standard deviation of the weights of queries and keys.
        seed: Random seed, or `None` for different weights in each call.
    """

    def __init__(self, scale: float = 0.1, seed: int | None = None) -> None:
        self.scale, self.seed = scale, seed

    def __call__(self, shape: Sequence[int], dtype: Any = None, **kwargs: Any) -> Any:
        deviates = keras.random.normal(shape, dtype=dtype, seed=self.seed)
        scales = np.repeat([self.scale, self.scale, 0.0], shape[-1] // 3)
        return deviates * ops.convert_to_tensor(scales, deviates.dtype)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "seed": self.seed}


@keras.saving.register_keras_serializable(package="keras_wm")
class EquivariantSelfAttention(ShellLayer):
    r"""Turns spins into effective spins by self-attention over all pairs of sites.

    For queries, keys and values (a = Q, K, V), each head sums the spins of every shell
    n around site i, where n = 0 is the site itself, with one weight per shell:

    \[ S^a_i = \sum_n w^a_n \sum_{j \in n(i)} S_j. \]

    The scores M_ij of all pairs of sites and the effective spins S' are

    \[ M_{ij} = \mathrm{relu}(S^Q_i \cdot S^K_j / \sqrt 3), \qquad
       S'_i = \frac{S_i + \sum_j M_{ij} S^V_j}{|S_i + \sum_j M_{ij} S^V_j|}. \]

    With several heads, their contributions are summed before the normalisation.

    The scores are scalar products, so the output transforms like the input under
    rotations and reflections in O(3). The weights depend on distances only, so the
    output also transforms like the input under translations and the point group of the
    lattice. A bias vector would break the first symmetry, a positional encoding the
    second.

    After the equivariant Transformer of Nagai & Tomiya (2023, arXiv:2306.11527).

    Args:
        extent: Numbers of sites L_x and L_y of a lattice with periodic boundaries.
        squared_distances: Squared distances of the shells, without the site itself.
        heads: Number of heads.
        kernel_initializer: Initializer of the kernel, shape `(shells + 1, 3 heads)`.
            The columns are the queries of all heads, then the keys, then the values.
            Defaults to `ZeroValueInitializer`.
        kernel_regularizer: Regularizer of the kernel, such as a `WatermarkRegularizer`.
        **kwargs: Arguments of every Keras layer.

    Input and output shape:
        `(batch, N, 3)`, with site \(x L_y + y\) at (x, y).

    Raises:
        ValueError: If the lattice has no shell at one of the distances, or the number
            of heads is not positive.
    """

    def __init__(
        self,
        extent: Sequence[int],
        squared_distances: Sequence[int],
        heads: int = 1,
        kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(extent, squared_distances, kernel_regularizer, **kwargs)
        if not isinstance(heads, int) or heads < 1:
            raise ValueError(f"Expected at least one head. Received: heads={heads!r}")
        self.heads = heads
        self.kernel_initializer = keras.initializers.get(
            ZeroValueInitializer() if kernel_initializer is None else kernel_initializer
        )

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.kernel = self.add_weight(
            shape=(1 + len(self.squared_distances), 3 * self.heads),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        super().build(input_shape)

    def call(self, spins: Any) -> Any:
        scores, values = self._scores_and_values(spins)
        # Not `ops.matmul`, which reduces double precision to single on PyTorch.
        attended = ops.einsum("bhij,bhjc->bhic", scores, values)
        return normalized(spins + ops.sum(attended, axis=1))

    def attention(self, spins: Any) -> Any:
        """Computes the scores M_ij of the pairs of sites.

        Args:
            spins: Unit vectors, shape `(batch, N, 3)`.

        Returns:
            Tensor of shape `(batch, heads, N, N)`.
        """
        return self._scores_and_values(ops.cast(spins, self.compute_dtype))[0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "heads": self.heads,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }

    def _scores_and_values(self, spins: Any) -> tuple[Any, Any]:
        blocks = ops.einsum("aij,bjc->baic", self._maps(), spins)
        queries, keys, values = ops.split(blocks, 3, axis=1)
        products = ops.einsum("bhic,bhjc->bhij", queries, keys)
        return ops.relu(products / sqrt(3)), values

    def _maps(self) -> Any:
        """Returns each kernel column's linear map of the spins, `(columns, N, N)`."""
        pairs = self.pairs()
        own = ops.eye(pairs.shape[-1], dtype=self.compute_dtype)
        shells = ops.concatenate([own[None], pairs])
        return ops.einsum("nij,na->aij", shells, self.kernel)


def normalized(vectors: Any) -> Any:
    """Normalises vectors to length 1 along the last axis."""
    # Not `ops.norm`, which reduces double precision to single on PyTorch.
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors / ops.sqrt(squares)
