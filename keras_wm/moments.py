r"""Keeping a mark out of what an outsider looks at first: how weights are spread.

A mark that grows in a kernel W makes its weights wider and their distribution more
normal, which the layers beside it betray. To first order a step \(D\) changes
\(\sum W^2\) by \(2 \langle W, D \rangle\) and \(\sum W^4\) by
\(4 \langle W^3, D \rangle\), elementwise powers: a step that is orthogonal to both
leaves the standard deviation and the kurtosis to the host.

What is taken from W for that is taken from how its filters differ, and not from their
mean, if the mark is not in there either.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod, sqrt
from typing import Any

from keras import ops

from keras_wm.reading import SMALLEST_RMS

# Below this share of its norm, what W^3 has beside W is rounding: the weights are all
# of one magnitude, and their kurtosis cannot fall.
_NEGLIGIBLE = 1e-3
# The share of the margin up to which a bit is on its way; from there on it is held.
_WAY = 7 / 8


def with_moments_held(kernel: Any, spare_mean: bool) -> Any:
    r"""The same kernel, with a gradient that is orthogonal to W and to W³.

    Args:
        kernel: W, a float tensor of any shape, filters last.
        spare_mean: Whether the mean filter is left as it is.

    Returns:
        A tensor of the same values. Its gradient g arrives at the kernel as
        \(g - c_1 P W - c_2 P W^3\), where P takes the mean filter off each filter, or
        is the identity, and \(c_1, c_2\) make that orthogonal to W and W³.
    """
    for taken, measured in _directions(ops.stop_gradient(kernel), spare_mean):
        along = ops.sum(taken * kernel) * measured
        kernel = kernel - along + ops.stop_gradient(along)
    return kernel


def advance(z: Any, margin: float) -> Any:
    r"""By how much more a push of each bit is to shorten W than it lengthens it now.

    A push of a bit by dz, where it stands z clear, adds z dz to
    \(\|W\|^2 / 2\sigma^2\), and an orthogonal step takes as much out of the rest. But
    momentum carries a step on, to where the bit stands further clear than when the step
    was worked out, and so W grew by half of what the mark took. A bit on its way from
    chance to the margin therefore pays at every z what it pays on the average of the
    way, and the sum is right whenever the steps arrive.

    Args:
        z: How far clear each bit stands, shape `(T,)`.
        margin: m.

    Returns:
        Tensor of shape `(T,)`, for `log_length` times the slope of each bit's loss.
    """
    way = _WAY * margin
    return ops.where(z < way, way / 2 - z, 0.0)


def log_length(kernel: Any, spare_mean: bool) -> Any:
    r"""0, with a gradient along which a step changes \(\log \|W\|\) by its length.

    Args:
        kernel: W, as in `with_moments_held`.
        spare_mean: As there.

    Returns:
        A scalar. Its gradient is \(P W / \|P W\|^2\).
    """
    free = _free(ops.stop_gradient(kernel), spare_mean)
    # As small as a score's norm may be, so that the gradient is finite.
    length = ops.maximum(_length(free), SMALLEST_RMS * sqrt(prod(kernel.shape)))
    # Divided twice, so that no square is too small for the type.
    along = ops.sum(free / length * kernel) / length
    return along - ops.stop_gradient(along)


def _directions(kernel: Any, spare_mean: bool) -> Iterator[tuple[Any, Any]]:
    """What is taken from a gradient, and what it is measured by, for both moments.

    The product of the two is 1, and that of one's with the other's 0. Zeros where
    there is no such direction.
    """
    norm = kernel * _inverse(_length(kernel))
    taken = _free(norm, spare_mean)
    by = _inverse(_length(taken))
    yield taken * by, norm * by
    # Of entries about 1, so that no power is too small for the type.
    cube = ops.power(sqrt(prod(kernel.shape)) * norm, 3)
    beside = cube - ops.sum(_free(cube, spare_mean) * taken) * by * by * norm
    taken = _free(beside, spare_mean)
    by = _inverse(_length(taken), _NEGLIGIBLE * _length(cube))
    yield taken * by, beside * by


def _free(kernel: Any, spare_mean: bool) -> Any:
    """The part of a kernel that may be changed."""
    return kernel - ops.mean(kernel, axis=-1, keepdims=True) if spare_mean else kernel


def _length(kernel: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(kernel)))


def _inverse(length: Any, least: Any = 0.0) -> Any:
    """1 / length, or 0 if it is no longer than that."""
    longer = length > least
    return ops.where(longer, 1.0 / ops.where(longer, length, 1.0), 0.0)
