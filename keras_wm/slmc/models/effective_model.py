r"""The effective model: a Heisenberg model of effective spins.

\[ \ln W_\mathrm{eff}(S) = K_0 + \sum_n K_n \sum_{\langle ij \rangle_n}
   S^{(L)}_i \cdot S^{(L)}_j, \]

where \(K_n = \beta J_n\), n counts shells of neighbours and \(S^{(L)}\) are the spins
behind L blocks of attention. With L = 0 it is the linear model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.models.attention import AttendingToNothing, EquivariantSelfAttention
from keras_wm.slmc.models.shell_layer import ShellLayer, shell_pairs
from keras_wm.utils.arrays import Floats

READOUT = "readout"
# By XLA, which Keras leaves off where there is no GPU. Networks this small are several
# times as fast by it.
COMPILED = keras.backend.backend() != "torch"
# Of all pairs of sites, in all heads and configurations at once.
_MOST_SCORES = 1 << 21


@keras.saving.register_keras_serializable(package="keras_wm")
class HeisenbergReadout(ShellLayer):
    r"""The logarithm of a weight, by the products of spins in each shell.

    Args:
        extent: L_x and L_y, of a lattice with periodic boundaries.
        squared_distances: Those of the shells that are coupled.
        kernel_regularizer: Of the couplings \(K_n\), shape `(shells, 1)`.
        **kwargs: What every Keras layer takes.

    Input shape:
        `(batch, N, 3)`.

    Output shape:
        `(batch, 1)`.
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        self.kernel = self.add_weight(
            shape=(len(self.squared_distances), 1),
            initializer="zeros",
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.offset = self.add_weight(shape=(1,), initializer="zeros", name="offset")
        super().build(input_shape)

    def call(self, spins: Any) -> Any:
        # Each pair is counted from both of its ends.
        couplings = ops.einsum("nij,no->ij", self.pairs(), self.kernel) / 2
        fields = ops.einsum("ij,bjc->bic", couplings, spins)
        return ops.sum(fields * spins, axis=(1, 2))[:, None] + self.offset


def effective_model(
    lattice: Lattice,
    shells: int | None = 6,
    blocks: int = 0,
    heads: int = 1,
    kernel_regularizer: Any = None,
    seed: int = 0,
    dtype: str | None = None,
) -> keras.Model:
    r"""A model of the logarithm of a configuration's weight.

    Args:
        lattice: A square lattice with periodic boundaries.
        shells: How many shells of neighbours it sees; `None` is all of the lattice.
        blocks: L, how many blocks of attention: layers `attention1`, `attention2`, ...
            Each starts as the identity. 0 is the linear model.
        heads: How many attentions a block adds up.
        kernel_regularizer: Of the weights of each attention.
        seed: Of the attentions' first weights.
        dtype: In which it computes; Keras's own by default. Single precision is enough.

    Returns:
        A `keras.Model` of spins `(batch, N, 3)` that gives \(\ln W_\mathrm{eff}\),
        shape `(batch, 1)`, not compiled. It has 3 L heads (shells + 1) + shells + 1
        parameters.

    Raises:
        ValueError: If the lattice has fewer shells, or a number is not positive.
    """
    squared_distances = [
        shell.squared_distance for shell in lattice.first_shells(shells)
    ]
    if not isinstance(blocks, int) or blocks < 0:
        raise ValueError(
            f"Expected a number of blocks, 0 or more. Received: blocks={blocks!r}"
        )
    inputs = spins = keras.Input((lattice.sites, 3), dtype=dtype, name="spins")
    for number in range(1, blocks + 1):
        spins = EquivariantSelfAttention(
            lattice.extent,
            squared_distances,
            heads,
            kernel_initializer=AttendingToNothing(seed=seed + number),
            kernel_regularizer=kernel_regularizer,
            name=f"attention{number}",
            dtype=dtype,
        )(spins)
    readout = HeisenbergReadout(
        lattice.extent, squared_distances, name=READOUT, dtype=dtype
    )
    return keras.Model(inputs, readout(spins), name="effective_model")


def log_weights(model: keras.Model, spins: Floats) -> Floats:
    r"""\(\ln W_\mathrm{eff}\) by an effective model.

    Args:
        model: What `effective_model` made.
        spins: Shape `(samples, N, 3)`.

    Returns:
        Shape `(samples,)`.
    """
    heads = max([1, *(layer.heads for layer in attentions(model))])
    at_once = max(1, _MOST_SCORES // (heads * spins.shape[1] ** 2))
    parts = np.split(spins, range(at_once, len(spins), at_once))
    # Not `predict`, and tensors, since arrays may come to single precision.
    tensors = [ops.convert_to_tensor(part, _dtype(model)) for part in parts]
    found = [np.asarray(model.predict_on_batch(one)) for one in tensors]
    return np.concatenate(found)[:, 0].astype(np.float64)


def attentions(model: keras.Model) -> list[EquivariantSelfAttention]:
    """The blocks of attention of an effective model, from the spins onwards."""
    return [
        layer for layer in model.layers if isinstance(layer, EquivariantSelfAttention)
    ]


def on_lattice(model: keras.Model, lattice: Lattice) -> keras.Model:
    """The same effective model on another lattice.

    Args:
        model: What `effective_model` made.
        lattice: A square lattice with shells at the same distances.

    Returns:
        A `keras.Model` with the same weights.

    Raises:
        ValueError: If the lattice has no shell at one of the distances.
    """
    shell_pairs(lattice, model.get_layer(READOUT).squared_distances)
    return chained(
        model,
        [twin(layer, lattice.extent) for layer in model.layers[1:]],
        lattice.sites,
    )


def twin(layer: ShellLayer, extent: Sequence[int] | None = None) -> ShellLayer:
    """A layer of the same settings, its regularizer included.

    Args:
        layer: A layer of an effective model.
        extent: L_x and L_y of another lattice.
    """
    config = layer.get_config() | {"kernel_regularizer": None}
    made: ShellLayer = type(layer).from_config(
        config | ({"extent": extent} if extent else {})
    )
    # Not by the config, from which a mark's regularizer comes back without its key.
    made.kernel_regularizer = layer.kernel_regularizer
    return made


def chained(
    model: keras.Model, layers: Sequence[ShellLayer], sites: int
) -> keras.Model:
    """Layers as an effective model, with a model's weights in those of its names."""
    inputs = spins = keras.Input((sites, 3), dtype=_dtype(model), name="spins")
    for layer in layers:
        spins = layer(spins)
    made = keras.Model(inputs, spins, name=model.name)
    for layer in model.layers[1:]:
        made.get_layer(layer.name).set_weights(layer.get_weights())
    return made


def _dtype(model: keras.Model) -> str:
    return str(model.inputs[0].dtype)
