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

from collections.abc import Sequence
from math import erf, exp, pi, prod, sqrt
from typing import Any

from keras import ops

from keras_wm.embedding.loss.bands import Bands
from keras_wm.embedding.loss.kernel_projection import SMALLEST_RMS

# If the part of a power of W that is orthogonal to the lower powers is below this share
# of its squared norm, it is rounding error: the weights have only a few different
# magnitudes, and this moment follows from the others.
_NEGLIGIBLE = 1e-6
# The powers are those of W divided by this many root mean squares, so that the tenth
# power does not overflow, even if one weight of a billion is not 0.
_SCALE = 8.0
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
        Tensor of shape `(T,)`: the noise that each bit removes, before it is
        multiplied by the slope of the bit's loss. It is 0 for a bit that is beyond
        its transition.
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


def corrected(
    gradient: Any, noise: Any, kernel: Any, keep_mean_filter: bool, bands: Bands
) -> Any:
    r"""Returns a gradient that changes the moments of a kernel as given noise does.

    Noise of variance \(\nu\) in every weight changes the mean of \(W^{p+1}\) by
    \(\frac{(p+1) p}{2} \nu \langle W^{p-1} \rangle\). The result is therefore
    \(D = g - \sum_p c_p P W^p\) with the three \(c_p\) for which
    \(\langle D, W^p \rangle = n \, p \langle W^{p-1} \rangle\). P subtracts the mean
    filter from each filter, or is the identity.

    With an anchor, W is split into its parts \(W_b\) along the bands of the anchor,
    with a coefficient each: \(\langle D, W_b \rangle = n s_b\) with the share
    \(s_b\) of the noise along band b. The means of \(W^{p-1}\) are then weighted with
    the share of the noise in each row.

    A part or a power that is a combination of the earlier ones gives no further
    direction: its coefficient is 0.

    Args:
        gradient: g, shape `(M, L)`.
        noise: n, a scalar. With 0, the result is orthogonal to the powers.
        kernel: W, shape `(M, L)`.
        keep_mean_filter: Whether the mean of the filters must not be changed.
        bands: The bands of the key's anchor.

    Returns:
        D, shape `(M, L)`.
    """
    rms = ops.sqrt(_product(kernel, kernel) / prod(kernel.shape))
    weights = kernel * (inverse(rms) / _SCALE)
    square = ops.square(weights)
    cube = square * weights
    powers = (weights, cube, cube * square)
    # The sums of the powers 2, 4, 6, 8 and 10 of the weights, of each row and of all.
    pairs = ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2))
    rows = [ops.sum(powers[a] * powers[b], axis=-1) for a, b in pairs]
    sums = [ops.sum(row) for row in rows]
    along = [bands.coordinates(power) for power in powers]
    of_bands = [bands.products(sums[p], along[0], along[p]) for p in range(3)]
    of_powers = sums[2:]
    norms = ops.sqrt(ops.maximum(of_bands[0], 0.0)), *map(ops.sqrt, sums[2::2])
    if keep_mean_filter:
        means = [ops.mean(power, axis=-1, keepdims=True) for power in powers]
        means_along = [bands.coordinates(mean) for mean in means]
        count = kernel.shape[-1]
        for p in range(3):
            total = _product(means[0], means[p])
            removed = bands.products(total, means_along[0], means_along[p])
            of_bands[p] = of_bands[p] - count * removed
        for number, (a, b) in enumerate(pairs[2:]):
            of_powers[number] -= count * _product(means[a], means[b])
    # Noise of the kernel is that of the scaled weights, divided by their scale.
    unit = noise / (_SCALE * ops.maximum(rms, SMALLEST_RMS))
    row_shares = ops.cast(bands.row_shares / prod(kernel.shape), kernel.dtype)
    given = bands.coordinates(gradient)
    of_gradient = (
        bands.products(_product(weights, gradient), along[0], given)
        - unit * ops.cast(bands.shares, kernel.dtype),
        _product(cube, gradient) - unit * 3.0 * ops.sum(row_shares * rows[0]),
        _product(powers[2], gradient) - unit * 5.0 * ops.sum(row_shares * rows[1]),
    )
    c, c_cube, c_fifth = _solved(of_bands, of_powers, of_gradient, norms)

    result = gradient - bands.with_factors(
        weights * (c[-1] + square * (c_cube + square * c_fifth)), along[0], c
    )
    if not keep_mean_filter:
        return result
    mean = means[0] * c[-1] + means[1] * c_cube + means[2] * c_fifth
    return result + bands.with_factors(mean, means_along[0], c)


def _solved(
    of_bands: Sequence[Any],
    of_powers: Sequence[Any],
    of_gradient: Sequence[Any],
    norms: Sequence[Any],
) -> tuple[Any, Any, Any]:
    """Returns the coefficients of the parts of W, of its cube and of its fifth power.

    The parts are orthogonal to each other, so they are eliminated together, and then
    the cube. If what is left of one of them is negligible, it is skipped.

    Args:
        of_bands: Scalar products of the parts of W with W, the cube and the fifth
            power, three tensors of shape `(B,)`.
        of_powers: Scalar products cube-cube, cube-fifth and fifth-fifth.
        of_gradient: Scalar products of what is to be removed with the parts, the cube
            and the fifth power.
        norms: Norms of the parts, of the cube and of the fifth power.
    """
    unit, unit_3, unit_5 = map(inverse, norms)
    own = of_bands[0] * ops.square(unit)
    with_3, with_5 = of_bands[1] * unit * unit_3, of_bands[2] * unit * unit_5
    s_33 = of_powers[0] * ops.square(unit_3)
    s_35 = of_powers[1] * unit_3 * unit_5
    s_55 = of_powers[2] * ops.square(unit_5)
    side, side_3, side_5 = (
        part * scale
        for part, scale in zip(of_gradient, (unit, unit_3, unit_5), strict=True)
    )
    pivot = inverse(own, _NEGLIGIBLE)
    s_33 -= ops.sum(pivot * with_3 * with_3)
    s_35 -= ops.sum(pivot * with_3 * with_5)
    s_55 -= ops.sum(pivot * with_5 * with_5)
    side_3 -= ops.sum(pivot * with_3 * side)
    side_5 -= ops.sum(pivot * with_5 * side)
    pivot_3 = inverse(s_33, _NEGLIGIBLE)
    pivot_5 = inverse(s_55 - s_35 * s_35 * pivot_3, _NEGLIGIBLE)
    c_5 = pivot_5 * (side_5 - s_35 * pivot_3 * side_3)
    c_3 = pivot_3 * (side_3 - s_35 * c_5)
    c = pivot * (side - with_3 * c_3 - with_5 * c_5)
    return c * unit, c_3 * unit_3, c_5 * unit_5


def _product(a: Any, b: Any) -> Any:
    """Returns the scalar product of two matrices, row by row for its accuracy."""
    return ops.sum(ops.sum(a * b, axis=-1))


def inverse(length: Any, threshold: float = 0.0) -> Any:
    """Returns 1 / length, or 0 if the length does not exceed the threshold."""
    is_longer = length > threshold
    # The inner `where` avoids a division by 0.
    return ops.where(is_longer, 1.0 / ops.where(is_longer, length, 1.0), 0.0)
