r"""Rotations inside attention: changes of the weights that leave the function as it is.

There is no nonlinearity between a head's query and key, nor between its value and the
output projection. So any invertible matrix R can be put there: \(W_Q R\) and
\(W_K R^{-\top}\), \(W_V R\) and \(R^{-1} W_O\). With a rotation, the weights keep
their size.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_wm.embedding.marked_layers import sublayers
from keras_wm.research.attacks.attack import Attack
from keras_wm.research.datasets import Examples
from keras_wm.utils.arrays import Floats

_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def random_rotation(rng: np.random.Generator, size: int, share: float) -> Floats:
    """Returns a random rotation, shape `(size, size)`.

    Args:
        rng: Source of randomness.
        size: Number of dimensions.
        share: Power of a uniformly random rotation, from 0 to 1. With 0, nothing
            is rotated.
    """
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    # With these signs, the matrix is uniform among all orthogonal ones.
    q *= np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    angles, vectors = np.linalg.eig(q)
    power = vectors * np.exp(1j * share * np.angle(angles)) @ np.linalg.inv(vectors)
    return np.asarray(power.real)


def _rotated(model: Any, data: Examples | None, share: float, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    attentions = [layer for layer in sublayers(model) if isinstance(layer, _ATTENTION)]
    if not attentions:
        raise ValueError(
            "Expected a model with MultiHeadAttention or GroupQueryAttention layers. "
            f"Received: {model.name!r}, which has none"
        )
    for attention in attentions:
        # The features of a head are the last axis of a kernel, but the second one of
        # the output projection's.
        _rotate(attention._query_dense, attention._key_dense, -1, share, rng)
        _rotate(attention._output_dense, attention._value_dense, 1, share, rng)
    return model


def _rotate(
    many: Any, few: Any, axis: int, share: float, rng: np.random.Generator
) -> None:
    """Rotates the features of the heads in which two projections meet.

    Args:
        many: The projection with a head for each query.
        few: The other one. In grouped-query attention, several heads share one of its.
        axis: Axis of the features in the kernel of `many`; that of the heads is before.
        share: See `random_rotation`.
        rng: Source of randomness.
    """
    groups, size = few._kernel.shape[-2:]
    rotations = np.stack([random_rotation(rng, size, share) for _ in range(groups)])
    for projection, feature_axis in ((many, axis), (few, -1)):
        for variable in (projection._kernel, projection.bias):
            # The bias of the output projection is not one of features.
            if variable is not None and not (variable is many.bias and axis == 1):
                _rotate_variable(variable, feature_axis, rotations)


def _rotate_variable(variable: Any, axis: int, rotations: Floats) -> None:
    """Multiplies the features of each head in a weight by the head's rotation."""
    array = np.moveaxis(np.asarray(variable, np.float64), (axis - 1, axis), (-2, -1))
    each = np.repeat(rotations, array.shape[-2] // len(rotations), axis=0)
    rotated = np.einsum("...hi,hij->...hj", array, each)
    variable.assign(np.moveaxis(rotated, (-2, -1), (axis - 1, axis)))


HEAD_ROTATION = Attack(
    "head-rotation",
    "Rotates the features of each attention head.",
    "power of a random rotation",
    (0.1, 0.25, 0.5, 1.0),
    _rotated,
)
