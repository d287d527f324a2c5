r"""Keeping a mark from changing the distribution of a kernel's weights.

To anyone without the key, a mark in a kernel W is added noise. Noise makes the
distribution of the weights wider and closer to a normal distribution, and a comparison
with the neighbouring layers reveals that.

To first order, a training step D changes \(\sum W^{p+1}\) by
\((p + 1) \langle W^p, D \rangle\), with elementwise powers. A step that is orthogonal
to W, W³ and W⁵ therefore leaves the variance, the kurtosis and the sixth moment to the
host. Steps are finite, and momentum delays them, so a second term removes the noise
that orthogonal steps still add (`noise_correction`).

Both corrections change only the differences between the filters of a kernel if the mark
is not in their mean, as with keyed filters.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import erf, exp, pi, prod, sqrt
from typing import Any, NamedTuple

from keras import ops

from keras_wm.embedding.kernel_projection import SMALLEST_RMS

# The powers of W that control the moments 2, 4 and 6. Odd moments are 0 on average.
_POWERS = (1, 3, 5)
# If the part of a power of W that is orthogonal to the lower powers is below this share
# of its norm, it is rounding error: the weights have only a few different magnitudes,
# and this moment follows from the others.
_NEGLIGIBLE = 1e-3
# A bit is in transition until its score reaches this share of the margin. Beyond it,
# training only holds the bit there.
_TRANSITION_SHARE = 7 / 8
# Momentum carries bits beyond the margin, so the mean score of the transition is raised
# by this factor. With it, the corrected mean is 1.75 at m = 4, half of the transition's
# end, where it was validated: in pairs of networks of the same seed, a mark changed the
# sixth moment by -0.4 +- 0.4 % and the kurtosis by -0.1 +- 0.1 %. Without correcting
# these two moments, it changed them by 1.4 +- 0.4 % and 0.4 +- 0.1 %.
_MOMENTUM_OVERSHOOT = 1.089


def noise_correction(z: Any, margin: float) -> Any:
    r"""Returns how much more noise a step of each bit must remove than it adds now.

    A step that raises the score of a bit from z to z + dz adds noise in proportion to
    z dz, and an orthogonal step removes as much from the rest of the kernel. But with
    momentum a step is applied late, when the score is already higher than at the time
    when the step was computed. Then too little noise is removed: the norm of W grew by
    half of what the mark contributed.

    A bit that is in transition from chance to the margin therefore removes the same
    noise at every z, namely the average over the transition. The sum is then right, no
    matter when the steps are applied.

    Args:
        z: Scores of the bits, shape `(T,)`.
        margin: The margin m.

    Returns:
        Tensor of shape `(T,)`: the factor of `Moments.noise_term` for each bit, before
        it is multiplied by the slope of the bit's loss. 0 for a bit that is no longer
        in transition.
    """
    transition_end = _TRANSITION_SHARE * margin
    mean_score = _MOMENTUM_OVERSHOOT * _mean_transition_score(transition_end)
    return ops.where(z < transition_end, mean_score - z, 0.0)


def _mean_transition_score(end: float) -> float:
    r"""Returns the mean score of the bits during their transition to a given score.

    In an unmarked kernel the score s of a bit is standard normal. A bit that moves from
    s to the end e has the mean score (e + s) / 2 and covers the distance e - s. The
    mean over all bits below e, weighted by distance, is
    \(E[(e^2 - s^2) / 2; s < e] \, / \, E[e - s; s < e]\).
    """
    share_below = (1 + erf(end / sqrt(2))) / 2
    density = exp(-(end**2) / 2) / sqrt(2 * pi)
    distance = end * share_below + density
    return ((end**2 - 1) * share_below + end * density) / 2 / distance


class _Direction(NamedTuple):
    r"""A power of W, orthogonalised to the lower powers.

    Let v be that power and P the projection onto the weights that may change.

    Attributes:
        removed: \(P v / \lVert P v \rVert\), the direction to remove from a gradient.
        measured: \(v / \lVert P v \rVert\). Its product with the gradient is the
            component to remove. Its product with `removed` is 1, and 0 with that of any
            other direction.
        noise: Product of `measured` with a step that changes the moments as noise does.
    """

    removed: Any
    measured: Any
    noise: Any


class Moments:
    """The moments of a kernel's weights, and the gradients that change them.

    Args:
        kernel: The kernel W, a float tensor of any shape, filters last.
        keep_mean_filter: Whether the mean of the filters must not be changed.
    """

    def __init__(self, kernel: Any, keep_mean_filter: bool) -> None:
        self._keep_mean_filter = keep_mean_filter
        self._kernel = ops.stop_gradient(kernel)
        self._rms = _norm(self._kernel) / sqrt(prod(kernel.shape))
        self._directions = self._orthogonal_directions()

    def with_orthogonal_gradient(self, kernel: Any) -> Any:
        r"""Returns the kernel with a gradient that is orthogonal to W, W³ and W⁵.

        Args:
            kernel: The kernel W itself, through which gradients flow.

        Returns:
            Tensor with the same values. Its gradient g arrives at the kernel as
            \(g - \sum_p c_p P W^p\) with the three \(c_p\) that make it orthogonal. P
            subtracts the mean filter from each filter, or is the identity.
        """
        for direction in self._directions:
            component = ops.sum(direction.removed * kernel) * direction.measured
            kernel = kernel - component + ops.stop_gradient(component)
        return kernel

    def noise_term(self, kernel: Any) -> Any:
        r"""Returns 0, with a gradient that changes the moments as noise does.

        Noise of variance \(\nu\) in every weight changes the mean of \(W^{p+1}\) by
        \(\frac{(p+1) p}{2} \nu \langle W^{p-1} \rangle\).

        Args:
            kernel: The kernel W itself, through which gradients flow.

        Returns:
            Scalar tensor. Its gradient E is a sum of the \(P W^p\) that satisfies
            \(\langle E, W^p \rangle = p \langle W^{p-1} \rangle\).
        """
        rms = ops.maximum(self._rms, SMALLEST_RMS)
        components = [
            ops.sum(direction.removed * kernel / rms) * direction.noise
            for direction in self._directions
        ]
        total = sum(components)
        return total - ops.stop_gradient(total)

    def _orthogonal_directions(self) -> list[_Direction]:
        """Orthogonalises the powers of W (Gram-Schmidt).

        A power that is a combination of the lower ones gives a direction of zeros.
        """
        directions: list[_Direction] = []
        for power, noise in self._powers():
            norm = _norm(power)
            for lower in directions:
                component = ops.sum(lower.removed * power)
                power = power - component * lower.measured
                noise = noise - component * lower.noise
            free = self._changeable(power)
            scale = _inverse(_norm(free), _NEGLIGIBLE * norm)
            directions.append(_Direction(free * scale, power * scale, noise * scale))
        return directions

    def _powers(self) -> Iterator[tuple[Any, Any]]:
        """Yields W, W³ and W⁵, each with the product of noise with it.

        Each power is scaled to a root mean square of 1, so that it neither overflows
        nor underflows.
        """
        weights = self._kernel * _inverse(self._rms)
        power, noise = weights, 1.0
        for exponent in _POWERS:
            yield power, noise
            next_power = ops.square(weights) * power
            scale = _inverse(_norm(next_power) / sqrt(prod(next_power.shape)))
            noise = (exponent + 2) * ops.mean(weights * power) * scale
            power = next_power * scale

    def _changeable(self, kernel: Any) -> Any:
        """Applies P: returns the part of a kernel that may be changed."""
        if not self._keep_mean_filter:
            return kernel
        return kernel - ops.mean(kernel, axis=-1, keepdims=True)


def _norm(kernel: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(kernel)))


def _inverse(length: Any, threshold: Any = 0.0) -> Any:
    """Returns 1 / length, or 0 if the length does not exceed the threshold."""
    is_longer = length > threshold
    # The inner `where` avoids a division by 0.
    return ops.where(is_longer, 1.0 / ops.where(is_longer, length, 1.0), 0.0)
