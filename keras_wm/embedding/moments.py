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

from math import erf, exp, pi, prod, sqrt
from typing import Any

from keras import ops

from keras_wm.embedding.kernel_projection import SMALLEST_RMS

# The powers of W that control the moments 2, 4 and 6. Odd moments are 0 on average.
_POWERS = (1, 3, 5)
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


def corrected(gradient: Any, noise: Any, kernel: Any, keep_mean_filter: bool) -> Any:
    r"""Returns a gradient that changes the moments of a kernel as given noise does.

    Noise of variance \(\nu\) in every weight changes the mean of \(W^{p+1}\) by
    \(\frac{(p+1) p}{2} \nu \langle W^{p-1} \rangle\). The result is therefore
    \(D = g - \sum_p c_p P W^p\) with the three \(c_p\) for which
    \(\langle D, W^p \rangle = n \, p \langle W^{p-1} \rangle\). P subtracts the mean
    filter from each filter, or is the identity.

    A power that is a combination of the lower ones gives no further direction: its
    \(c_p\) is 0.

    Args:
        gradient: g, shape `(M, L)`.
        noise: n, a scalar. With 0, the result is orthogonal to the powers.
        kernel: W, shape `(M, L)`.
        keep_mean_filter: Whether the mean of the filters must not be changed.

    Returns:
        D, shape `(M, L)`.
    """
    rms = ops.sqrt(_product(kernel, kernel) / prod(kernel.shape))
    weights = kernel * (inverse(rms) / _SCALE)
    square = ops.square(weights)
    cube = square * weights
    powers = (weights, cube, cube * square)
    # The sums of the powers 2, 4, 6, 8 and 10 of the weights.
    pairs = ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2))
    sums = [_product(powers[a], powers[b]) for a, b in pairs]
    products = ops.stack([ops.stack(sums[row : row + 3]) for row in range(3)])
    if keep_mean_filter:
        means = ops.stack([ops.mean(power, axis=-1) for power in powers])
        products -= kernel.shape[-1] * ops.matmul(means, ops.transpose(means))
    # Noise of the kernel is that of the scaled weights, divided by their scale.
    unit = noise / (_SCALE * ops.maximum(rms, SMALLEST_RMS))
    mean_powers = (1.0, sums[0] / prod(kernel.shape), sums[1] / prod(kernel.shape))
    right_side = ops.stack(
        [
            _product(power, gradient) - unit * exponent * mean_power
            for power, exponent, mean_power in zip(
                powers, _POWERS, mean_powers, strict=True
            )
        ]
    )
    c = _solved(products, right_side, ops.sqrt(ops.stack(sums[::2])))
    removed = weights * (c[0] + square * (c[1] + square * c[2]))
    if keep_mean_filter:
        removed = removed - ops.reshape(ops.matmul(c, means), (-1, 1))
    return gradient - removed


def _solved(products: Any, right_side: Any, norms: Any) -> Any:
    """Returns the coefficients of the powers: the solution of three linear equations.

    Gauss-Jordan elimination that skips each power whose part that is orthogonal to the
    lower ones is negligible.

    Args:
        products: Scalar products of the parts of the powers in P, shape `(3, 3)`.
        right_side: Shape `(3,)`.
        norms: Norms of the powers, shape `(3,)`.
    """
    inverse_norms = ops.reshape(inverse(norms), (-1, 1))
    system = ops.concatenate(
        [products * ops.transpose(inverse_norms), ops.reshape(right_side, (-1, 1))], 1
    )
    system = system * inverse_norms
    identity = ops.eye(len(_POWERS), dtype=system.dtype)
    is_kept = []
    for number in range(len(_POWERS)):
        # The squared norm of the part that is orthogonal to the lower powers.
        pivot = inverse(system[number, number], _NEGLIGIBLE)
        column = slice(number, number + 1)
        factors = system[:, column] - identity[:, column]
        system = system - factors * (system[column] * pivot)
        is_kept.append(pivot > 0.0)
    solution = ops.where(ops.stack(is_kept), system[:, -1], 0.0)
    return solution * inverse_norms[:, 0]


def _product(a: Any, b: Any) -> Any:
    """Returns the scalar product of two matrices, row by row for its accuracy."""
    return ops.sum(ops.sum(a * b, axis=-1))


def inverse(length: Any, threshold: float = 0.0) -> Any:
    """Returns 1 / length, or 0 if the length does not exceed the threshold."""
    is_longer = length > threshold
    # The inner `where` avoids a division by 0.
    return ops.where(is_longer, 1.0 / ops.where(is_longer, length, 1.0), 0.0)
