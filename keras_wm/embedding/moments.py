r"""Keeping a mark out of what an outsider looks at first: how weights are distributed.

A mark that grows in a kernel W is noise to whoever has no key, and makes its weights
wider and their distribution more normal, which the layers beside it betray. To first
order a step D changes \(\sum W^{p+1}\) by \((p + 1) \langle W^p, D \rangle\),
elementwise powers. A step that is orthogonal to W, W³ and W⁵ leaves spread, kurtosis
and the sixth moment to the host.

What is taken from W for that is taken from how its filters differ, and not from their
mean, if the mark is not in there either.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import erf, exp, pi, prod, sqrt
from typing import Any

from keras import ops

from keras_wm.embedding.kernel_projection import SMALLEST_RMS

# Of the moments 2, 4 and 6. Odd ones are 0 but by chance.
_POWERS = (1, 3, 5)
# Below this share of its norm, what a power of W has beside lower ones is rounding: the
# weights are of few magnitudes, and that moment follows from the others.
_NEGLIGIBLE = 1e-3
# The share of the margin up to which a bit is on its way; from there on it is held.
_WAY = 7 / 8
# And this much more, since momentum carries bits beyond the margin.
_CARRIED = 1.089


def advance(z: Any, margin: float) -> Any:
    r"""How much more of its noise a push of each bit is to take out than it brings now.

    A push of a bit by dz, where it stands z clear, brings noise in proportion to z dz,
    and an orthogonal step takes as much out of the rest. But momentum carries a step
    on, to where the bit stands further clear than when the step was worked out, and so
    W grew by half of what the mark took. A bit on its way from chance to the margin
    therefore pays at every z what it pays on the average of the way, and the sum is
    right whenever the steps arrive.

    Args:
        z: How far clear each bit stands, shape `(T,)`.
        margin: m.

    Returns:
        Tensor of shape `(T,)`, for `Moments.noise` times the slope of each bit's loss.
    """
    way = _WAY * margin
    return ops.where(z < way, _CARRIED * _mean_on_the_way(way) - z, 0.0)


def _mean_on_the_way(end: float) -> float:
    """The mean z of bits on their way to an end, from where chance has them."""
    below = (1 + erf(end / sqrt(2))) / 2
    density = exp(-(end**2) / 2) / sqrt(2 * pi)
    passed = end * below + density
    return ((end**2 - 1) * below + end * density) / 2 / passed


class Moments:
    """The moments of a kernel's weights, and what changes them.

    Args:
        kernel: W, a float tensor of any shape, filters last.
        spare_mean: Whether the mean filter is left as it is.
    """

    def __init__(self, kernel: Any, spare_mean: bool) -> None:
        self._spare_mean = spare_mean
        self._kernel = ops.stop_gradient(kernel)
        self._rms = _length(self._kernel) / sqrt(prod(kernel.shape))
        self._directions = list(self._orthogonal())

    def held(self, kernel: Any) -> Any:
        r"""The kernel, with a gradient that is orthogonal to W, W³ and W⁵.

        Args:
            kernel: W, the variable itself.

        Returns:
            A tensor of the same values. Its gradient g arrives at the kernel as
            \(g - \sum_p c_p P W^p\), where P takes the mean filter off each filter, or
            is the identity, and the three \(c_p\) make that orthogonal.
        """
        for taken, measured, _ in self._directions:
            along = ops.sum(taken * kernel) * measured
            kernel = kernel - along + ops.stop_gradient(along)
        return kernel

    def noise(self, kernel: Any) -> Any:
        r"""0, with a gradient along which a step changes the moments as noise does.

        Noise of the variance \(\nu\) in every weight changes the mean of
        \(W^{p+1}\) by \(\frac{(p+1) p}{2} \nu \langle W^{p-1} \rangle\).

        Args:
            kernel: W, the variable itself.

        Returns:
            A scalar. Its gradient E is a sum of \(P W^p\), with
            \(\langle E, W^p \rangle = p\) times the mean of \(W^{p-1}\).
        """
        rms = ops.maximum(self._rms, SMALLEST_RMS)
        along = sum(
            ops.sum(taken * kernel / rms) * owed for taken, _, owed in self._directions
        )
        return along - ops.stop_gradient(along)

    def _orthogonal(self) -> Iterator[tuple[Any, Any, Any]]:
        """What is taken from a gradient, what measures it, and noise's part in that.

        Powers of W that are orthogonal: the product of what is taken with what it is
        measured by is 1, and with the others' 0. Zeros where there is no such
        direction.
        """
        found: list[tuple[Any, Any, Any]] = []
        for power, owed in self._powers():
            length = _length(power)
            for taken, measured, others in found:
                shared = ops.sum(taken * power)
                power = power - shared * measured
                owed = owed - shared * others
            free = self._free(power)
            by = _inverse(_length(free), _NEGLIGIBLE * length)
            found.append((free * by, power * by, owed * by))
            yield found[-1]

    def _powers(self) -> Iterator[tuple[Any, Any]]:
        """W, W³ and W⁵ and their products with noise, both in units of their own.

        Of entries about 1, so that no power is too large or too small for the type.
        """
        weights = self._kernel * _inverse(self._rms)
        power, owed = weights, 1.0
        for exponent in _POWERS:
            yield power, owed
            higher = ops.square(weights) * power
            by = _inverse(_length(higher) / sqrt(prod(higher.shape)))
            owed = (exponent + 2) * ops.mean(weights * power) * by
            power = higher * by

    def _free(self, kernel: Any) -> Any:
        """The part of a kernel that may be changed."""
        if not self._spare_mean:
            return kernel
        return kernel - ops.mean(kernel, axis=-1, keepdims=True)


def _length(kernel: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(kernel)))


def _inverse(length: Any, least: Any = 0.0) -> Any:
    """1 / length, or 0 if it is no longer than that."""
    longer = length > least
    return ops.where(longer, 1.0 / ops.where(longer, length, 1.0), 0.0)
