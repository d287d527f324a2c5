"""Measuring an anchor: the main directions of a kernel's inputs."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from keras_wm.embedding.anchoring.kernel_inputs import KernelInputs, sampled_rows
from keras_wm.embedding.attachment import find_kernel
from keras_wm.scheme.anchor import Anchor
from keras_wm.utils.arrays import Floats

# A few dozen directions of the inputs do what all do.
DIRECTIONS = 32
# Rows of inputs from which the second moment is estimated.
ROWS = 16_384
# The random test vectors beyond the number of directions, for their accuracy.
_MORE_VECTORS = 32


def measured_anchor(
    model: Any, layer: Any, inputs: Any, variable: str | None = None
) -> Anchor:
    r"""Returns the anchor of a kernel for some examples of the network's inputs.

    With the eigenvalues \(\lambda_i\) of the second moment of the kernel's inputs and
    their mean \(\mu\) over all directions, the gain of direction i is
    \(\sqrt{1 + \lambda_i / \mu} - 1\).

    Args:
        model: A built Keras model.
        layer: The layer or its name, as for `keras_wm.attach`.
        inputs: Examples of the model's inputs, without labels: an array, or a list or
            dict of arrays.
        variable: Name of the layer's variable, as for `keras_wm.attach`.

    Raises:
        ValueError: If the kernel is not one of a dense or convolutional layer, or all
            of its inputs are 0.
    """
    reader = KernelInputs.of(*find_kernel(model, layer, variable))
    shape = reader.kernel.shape
    rng, size = np.random.default_rng(0), reader.size
    vectors = rng.normal(size=(size, min(size, DIRECTIONS + _MORE_VECTORS)))
    products, trace, count = np.zeros_like(vectors), 0.0, 0
    for (rows,) in sampled_rows(model, [reader], inputs, ROWS):
        wide = rows.astype(np.float64)
        products += wide.T @ (wide @ vectors)
        trace += float(np.square(wide).sum())
        count += len(rows)
    if not np.isfinite(trace) or not trace:
        raise ValueError(
            f"Expected examples that give the layer {reader.layer.name!r} finite "
            f"inputs that are not all 0. Received: {count} rows of inputs with a mean "
            f"square of {trace / max(count * size, 1):g}"
        )
    values, directions = _eigenpairs(products, vectors, DIRECTIONS)
    gains = np.sqrt(1 + values * size / trace) - 1
    before = prod(shape[: reader.seen[0]])
    return Anchor(gains, directions, before, prod(shape[reader.seen[-1] + 1 : -1]))


def _eigenpairs(products: Floats, vectors: Floats, count: int) -> tuple[Floats, Floats]:
    """Returns the largest eigenvalues of a matrix C, and their vectors in columns.

    C is only known by its products with random vectors, so that it is never in memory:
    the single-pass Nyström approximation of
    [Tropp et al. (2017)](https://arxiv.org/abs/1706.05736), algorithm 3.

    Args:
        products: C times the vectors, shape `(m, k)`. C has no negative eigenvalue.
        vectors: Independent normal vectors, shape `(m, k)`.
        count: Number of eigenvalues, or fewer if k is smaller.
    """
    basis, upper = np.linalg.qr(vectors)
    images = np.linalg.solve(upper.T, products.T).T
    # A shift keeps the factorisation stable, and is subtracted again.
    shift = np.finfo(np.float64).eps * np.linalg.norm(images)
    images = images + shift * basis
    inner = basis.T @ images
    factor = np.linalg.cholesky((inner + inner.T) / 2)
    left, singular, _ = np.linalg.svd(
        np.linalg.solve(factor, images.T).T, full_matrices=False
    )
    values = np.maximum(singular**2 - shift, 0)
    return values[:count], left[:, :count]
