"""Self-attention that turns with the spins and moves with the lattice."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wm.slmc.models.shell_layer import ShellLayer


@keras.saving.register_keras_serializable(package="keras_wm")
class AttendingToNothing(keras.initializers.Initializer):
    """Normal deviates for queries and keys, and zero for values.

    A block that starts so leaves the spins as they are, and may be put on a model that
    is trained already. With values a little off zero it may not: where spins are in
    order, what all sites attend to adds up.

    Args:
        scale: The standard deviation of the weights of queries and keys.
        seed: A whole number, or `None` for another at each call.
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
    r"""Makes effective spins of spins, by what all pairs of sites have in common.

    Each head has three maps \(S^a_i = \sum_n w^a_n \sum_{j \in n(i)} S_j\), a weight
    for the site itself and one for each shell n of neighbours. By them it scores all
    pairs of sites, and every spin is turned towards what it attends to:

    \[ M_{ij} = \mathrm{relu}(S^Q_i \cdot S^K_j / \sqrt 3), \qquad
       S'_i \propto S_i + \sum_j M_{ij} S^V_j, \qquad |S'_i| = 1. \]

    Scores are scalars, so the output turns with the input, mirrors included; and since
    weights belong to distances, it moves with it under every symmetry of the lattice.
    There is no bias, which would be a direction, and no code of positions.

    After the equivariant Transformer of Nagai & Tomiya (2023, arXiv:2306.11527).

    Args:
        extent: L_x and L_y, of a lattice with periodic boundaries.
        squared_distances: Those of the shells that are seen, besides the site itself.
        heads: How many attentions are added up.
        kernel_initializer: Of the weights, shape `(shells + 1, 3 heads)`: columns for
            queries of all heads, then keys, then values. Defaults to
            `AttendingToNothing`.
        kernel_regularizer: Of the weights, such as a `WatermarkRegularizer`.
        **kwargs: What every Keras layer takes.

    Input and output shape:
        `(batch, N, 3)`, site \(x L_y + y\) at (x, y).

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
            raise ValueError(f"Expected one head or more. Received: heads={heads!r}")
        self.heads = heads
        self.kernel_initializer = keras.initializers.get(
            AttendingToNothing() if kernel_initializer is None else kernel_initializer
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
        # Not `ops.matmul`, which takes double precision down to single on PyTorch.
        turns = ops.einsum("bhij,bhjc->bhic", scores, values)
        return normalized(spins + ops.sum(turns, axis=1))

    def attention(self, spins: Any) -> Any:
        """M, how much each site attends to each other.

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
        """What each column of the kernel makes of the spins, `(columns, N, N)`."""
        pairs = self.pairs()
        own = ops.eye(pairs.shape[-1], dtype=self.compute_dtype)
        shells = ops.concatenate([own[None], pairs])
        return ops.einsum("nij,na->aij", shells, self.kernel)


def normalized(vectors: Any) -> Any:
    """Vectors of length 1 in the same direction, along the last axis."""
    # Not `ops.norm`, which takes double precision down to single on PyTorch.
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors / ops.sqrt(squares)
