r"""Keeping a mark out of what an outsider looks at first: how weights are spread.

A mark that grows in a kernel W makes its weights wider and their distribution more
normal, which the layers beside it betray. To first order a step \(D\) changes
\(\sum W^2\) by \(2 \langle W, D \rangle\) and \(\sum W^4\) by
\(4 \langle W^3, D \rangle\), elementwise powers: a step that is orthogonal to both
leaves the standard deviation and the kurtosis to the host.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

from keras import ops

# Below this share of its norm, what W^3 has beside W is rounding: the weights are all
# of one magnitude, and their kurtosis cannot fall.
_NEGLIGIBLE = 1e-3


def with_moments_held(kernel: Any) -> Any:
    r"""The same kernel, with a gradient that is orthogonal to W and to W³.

    Args:
        kernel: W, a float tensor of any shape.

    Returns:
        A tensor of the same values. The gradient g that it receives arrives at the
        kernel as \(g - \sum_i v_i \langle v_i, g \rangle\), where \(v_1, v_2\)
        are an orthonormal basis of W and W³.
    """
    for direction in _basis(ops.stop_gradient(kernel)):
        along = ops.sum(direction * kernel) * direction
        kernel = kernel - along + ops.stop_gradient(along)
    return kernel


def _basis(kernel: Any) -> tuple[Any, Any]:
    """Orthonormal directions of W and W³; zeros where there is none."""
    norm = _directed(kernel)
    # Of entries about 1, so that no power is too small for the type.
    cube = ops.power(sqrt(prod(kernel.shape)) * norm, 3)
    length = ops.sqrt(ops.sum(ops.square(cube)))
    kurtosis = cube - ops.sum(norm * cube) * norm
    return norm, _directed(kurtosis, _NEGLIGIBLE * length)


def _directed(direction: Any, least: Any = 0.0) -> Any:
    """A direction of length 1, or zeros if it is no longer than that."""
    length = ops.sqrt(ops.sum(ops.square(direction)))
    longer = length > least
    return ops.where(longer, direction / ops.where(longer, length, 1.0), 0.0)
