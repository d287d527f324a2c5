r"""The effective model: a Heisenberg model of effective spins.

\[ \ln W_\mathrm{eff}(S) = K_0 + \sum_n K_n \sum_{\langle ij \rangle_n}
   S^{(L)}_i \cdot S^{(L)}_j \]

with \(K_n = \beta J_n\), where n counts shells of neighbours and \(S^{(L)}\) are the
effective spins after L blocks of attention. For L = 0 it is the linear model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from keras import ops

from keras_wm.slmc.lattice import Lattice
from keras_wm.slmc.models.attention import (
    EquivariantSelfAttention,
    ShellLayer,
    ZeroValueInitializer,
    shell_pairs,
)
from keras_wm.slmc.models.linear_model import LinearModel
from keras_wm.utils.arrays import Floats

READOUT = "readout"
# Without a GPU, Keras does not compile with XLA by default. Networks this small are
# several times as fast with it.
JIT_COMPILE = keras.backend.backend() != "torch"
# Attention scores that are held in memory at once: pairs of sites x heads x
# configurations.
_MAX_SCORES = 1 << 21


@keras.saving.register_keras_serializable(package="keras_wm")
class HeisenbergReadout(ShellLayer):
    r"""Heisenberg model of its input spins, with one coupling per shell.

    \[ K_0 + \sum_n K_n \sum_{\langle ij \rangle_n} S_i \cdot S_j \]

    Args:
        extent: Numbers of sites L_x and L_y of a lattice with periodic boundaries.
        squared_distances: Squared distances of the coupled shells.
        kernel_regularizer: Regularizer of the couplings \(K_n\), shape `(shells, 1)`.
        **kwargs: Arguments of every Keras layer.

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
        # Half, because the sum over i and j counts each pair twice.
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
    r"""Makes an effective model of the logarithm of the exact weight.

    Args:
        lattice: Square lattice with periodic boundaries.
        shells: Number of shells that each layer sees; `None` for all.
        blocks: Number of attention blocks L, the layers `attention1`, `attention2`, ...
            Each block starts as the identity. 0 is the linear model.
        heads: Number of heads per block.
        kernel_regularizer: Regularizer of each attention kernel.
        seed: Random seed of the first attention weights.
        dtype: Data type of the computation; Keras's default type by default. Single
            precision is sufficient.

    Returns:
        An uncompiled `keras.Model` from spins `(batch, N, 3)` to
        \(\ln W_\mathrm{eff}\), shape `(batch, 1)`. It has
        3 L heads (shells + 1) + shells + 1 parameters.

    Raises:
        ValueError: If the lattice has fewer shells, `blocks` is negative or `heads` is
            not positive.
    """
    squared_distances = [
        shell.squared_distance for shell in lattice.first_shells(shells)
    ]
    if not isinstance(blocks, int) or blocks < 0:
        raise ValueError(
            f"Expected a number of blocks, 0 or more. Received: blocks={blocks!r}"
        )
    readout = HeisenbergReadout(
        lattice.extent, squared_distances, name=READOUT, dtype=dtype
    )
    spins = keras.Input((lattice.sites, 3), dtype=dtype, name="spins")
    model = keras.Model(spins, readout(spins), name="effective_model")
    for number in range(1, blocks + 1):
        model = with_extra_block(model, seed + number, heads, kernel_regularizer)
    return model


def log_weights(model: keras.Model, spins: Floats) -> Floats:
    r"""Computes \(\ln W_\mathrm{eff}\) with an effective model.

    Args:
        model: Effective model made by `effective_model`.
        spins: Configurations, shape `(samples, N, 3)`.

    Returns:
        Shape `(samples,)`.
    """
    heads = max([1, *(layer.heads for layer in attentions(model))])
    batch = max(1, _MAX_SCORES // (heads * spins.shape[1] ** 2))
    parts = np.split(spins, range(batch, len(spins), batch))
    # Tensors, because Keras may convert arrays to single precision.
    tensors = [ops.convert_to_tensor(part, _dtype(model)) for part in parts]
    values = [np.asarray(model.predict_on_batch(tensor)) for tensor in tensors]
    return np.concatenate(values)[:, 0].astype(np.float64)


def attentions(model: keras.Model) -> list[EquivariantSelfAttention]:
    """Returns the attention blocks of an effective model, first block first."""
    return [
        layer for layer in model.layers if isinstance(layer, EquivariantSelfAttention)
    ]


def set_linear(model: keras.Model, linear: LinearModel) -> None:
    """Copies a linear model of the same shells into an effective model's readout."""
    readout = model.get_layer(READOUT)
    readout.kernel.assign(linear.couplings[:, None])
    readout.offset.assign([linear.offset])


def with_extra_block(
    model: keras.Model, seed: int = 0, heads: int = 1, kernel_regularizer: Any = None
) -> keras.Model:
    """Returns an effective model with one more attention block, still the identity.

    Args:
        model: Effective model with any number of blocks.
        seed: Random seed of the new block's first weights.
        heads: Number of heads of the new block.
        kernel_regularizer: Regularizer of the new block's kernel.

    Returns:
        A `keras.Model` with copies of all weights of `model`.
    """
    blocks, readout = attentions(model), model.get_layer(READOUT)
    new = EquivariantSelfAttention(
        readout.extent,
        readout.squared_distances,
        heads,
        kernel_initializer=ZeroValueInitializer(seed=seed),
        kernel_regularizer=kernel_regularizer,
        name=f"attention{len(blocks) + 1}",
        dtype=readout.dtype_policy,
    )
    layers = [*map(clone_layer, blocks), new, clone_layer(readout)]
    return _stacked(layers, model, model.input_shape[1])


def on_lattice(model: keras.Model, lattice: Lattice) -> keras.Model:
    """Returns an effective model with the same weights on another lattice.

    Args:
        model: Effective model made by `effective_model`.
        lattice: Square lattice that has the model's shells.

    Raises:
        ValueError: If the lattice has no shell at one of the distances.
    """
    shell_pairs(lattice, model.get_layer(READOUT).squared_distances)
    layers = [clone_layer(layer, lattice.extent) for layer in model.layers[1:]]
    return _stacked(layers, model, lattice.sites)


def load_effective_model(path: str | os.PathLike[str], lattice: Lattice) -> keras.Model:
    """Loads an effective model from a file and puts it on a lattice.

    Args:
        path: File that `keras-wm slmc train` or `model.save` wrote.
        lattice: Square lattice that has the model's shells.

    Raises:
        ValueError: If the file does not exist or is not an effective model, or the
            lattice does not have its shells.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise ValueError(
            "Expected the file of an effective model, such as `keras-wm slmc train` "
            f"makes. Received: {name!r}"
        )
    try:
        model = keras.saving.load_model(path)
    # Keras raises any of these, depending on the damaged part of the file.
    except (ValueError, KeyError, TypeError, OSError, BadZipFile) as error:
        raise ValueError(
            f"{name!r} is damaged, or not a model that Keras can load: {error}"
        ) from error
    if READOUT not in {layer.name for layer in model.layers}:
        raise ValueError(
            f"{name!r} is not an effective model: it has no layer {READOUT!r}. Make "
            "one with `keras-wm slmc train`."
        )
    return on_lattice(model, lattice)


def clone_layer(layer: ShellLayer, extent: Sequence[int] | None = None) -> ShellLayer:
    """Returns a new layer with the same settings and the same regularizer object.

    Args:
        layer: Layer of an effective model.
        extent: Numbers of sites L_x and L_y; those of `layer` by default.
    """
    config = layer.get_config() | {"kernel_regularizer": None}
    if extent is not None:
        config["extent"] = extent
    clone: ShellLayer = type(layer).from_config(config)
    # Not from the configuration: a watermark's regularizer would lose its key.
    clone.kernel_regularizer = layer.kernel_regularizer
    return clone


def _stacked(
    layers: Sequence[ShellLayer], model: keras.Model, sites: int
) -> keras.Model:
    """Connects layers in sequence; those named as in `model` get its weights."""
    inputs = spins = keras.Input((sites, 3), dtype=_dtype(model), name="spins")
    for layer in layers:
        spins = layer(spins)
    stacked = keras.Model(inputs, spins, name=model.name)
    for layer in model.layers[1:]:
        stacked.get_layer(layer.name).set_weights(layer.get_weights())
    return stacked


def _dtype(model: keras.Model) -> str:
    return str(model.inputs[0].dtype)
