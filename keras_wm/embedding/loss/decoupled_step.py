r"""A step that moves a kernel towards its mark, and does nothing else to it.

As part of the training loss, a mark goes through the optimizer. Adam divides every
gradient by the root of its mean square, so the mark's gradient slows down what the host
learns in the same weights, and whoever compares the layer with its neighbours can see
that. AdamW keeps its weight decay out of the optimizer for such a reason
([Loshchilov & Hutter, 2019](https://arxiv.org/abs/1711.05101)). A step of the mark's
own between two steps of the optimizer does the same for the mark.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_wm.embedding.loss.kernel_projection import KernelProjection
from keras_wm.embedding.loss.moments import corrected, inverse


def stepped(kernel: Any, projection: KernelProjection, share: float) -> Any:
    r"""Returns a kernel whose bits have come closer to the margin.

    With the gradient g of the margin loss \(\ell = \sum_j \max(0, m - z_j)^2\) and the
    direction d that is left of it when the moments of the weights are held, the kernel
    is moved by \(-\eta d\), where \(\eta \langle g, d \rangle = 2 \rho \ell\). To first
    order, each bit then covers the share \(\rho\) of its way to the margin.

    Args:
        kernel: The kernel W, a float32 or float64 tensor of any rank, filters last.
        projection: The projection of kernels of its shape.
        share: \(\rho\), from 0 to 1.

    Returns:
        NumPy array of the kernel's shape, with the same values in another order: see
        `with_values_of`.
    """
    weights = ops.reshape(kernel, projection.shape)
    gradient, direction, fall = _descent(weights, projection, share)
    rate = fall * inverse(ops.sum(gradient * direction))
    moved = with_values_of(
        ops.convert_to_numpy(weights - rate * direction), ops.convert_to_numpy(weights)
    )
    return np.reshape(moved, tuple(kernel.shape))


def stepped_factors(
    frozen: Any,
    a: Any,
    b: Any,
    scale: float,
    projection: KernelProjection,
    share: float,
) -> tuple[Any, Any]:
    r"""Returns the factors of a kernel \(W + c A B\) after such a step.

    Only the factors are moved, along their own gradients. Their few ranks have no room
    to hold the distribution of the merged weights.

    Args:
        frozen: W, a float32 tensor of any rank, filters last.
        a: A, shape `(..., r)`.
        b: B, shape `(r, L)`.
        scale: c.
        projection: The projection of kernels of the shape of W.
        share: \(\rho\), from 0 to 1.
    """
    flat = ops.reshape(a, (-1, a.shape[-1]))
    weights = ops.reshape(frozen, projection.shape) + scale * ops.matmul(flat, b)
    gradient, direction, fall = _descent(weights, projection, share)
    of_a = scale * ops.matmul(direction, ops.transpose(b))
    of_b = scale * ops.matmul(ops.transpose(flat), direction)
    merged = scale * (ops.matmul(of_a, b) + ops.matmul(flat, of_b))
    rate = fall * inverse(ops.sum(gradient * merged))
    return a - rate * ops.reshape(of_a, a.shape), b - rate * of_b


def _descent(weights: Any, projection: KernelProjection, share: float) -> Any:
    """Returns the loss's gradient, the direction to move, and how far the loss falls.

    The energy that a step along the direction adds to the weights is taken from the
    rest of them: it is half of the fall, whatever the length of the direction.
    """
    outputs, norm = projection.signed_outputs(weights)
    shortfall = ops.relu(projection.margin - outputs / norm)
    fall = 2.0 * share * ops.sum(ops.square(shortfall))
    gradient = projection.gradient(-2.0 * shortfall / norm)
    direction = corrected(
        gradient, fall / 2.0, weights, projection.keyed, projection.bands
    )
    return gradient, direction, fall


def with_values_of(moved: Any, weights: Any) -> Any:
    """Returns the values of some weights, in the order of weights that were moved.

    The largest of the moved weights gets the largest of the old values, and so on. A
    step then leaves no trace in the distribution of the weights, such as a blurred edge
    of the truncated or uniform distribution that they were drawn from.

    Weights with few different values, such as a kernel of zeros, have no distribution
    that a mark could keep: the moved ones are returned as they are.

    Args:
        moved: Array of any shape.
        weights: Array of the same shape.
    """
    values = np.sort(weights, axis=None)
    if np.count_nonzero(np.diff(values)) < values.size / 2:
        return moved
    result = np.empty_like(values)
    result[np.argsort(moved, axis=None)] = values
    return result.reshape(moved.shape)
