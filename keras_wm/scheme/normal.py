"""Quantiles and tail probabilities of the standard normal distribution.

scipy.special has both functions, but importing it takes longer than verifying a file,
and a key must give the same numbers with every version of SciPy.
"""

from __future__ import annotations

from math import erfc, log, log1p, pi, sqrt

import numpy as np

from keras_wm.utils.arrays import Floats

# Coefficients of Wichura, Algorithm AS 241: The percentage points of the normal
# distribution, Applied Statistics 37 (1988), PPND16. Each row holds the coefficients of
# one power of x in the numerator and in the denominator, starting with the constants.
_CENTRE = (
    (3.3871328727963666080, 1.0),
    (1.3314166789178437745e2, 4.2313330701600911252e1),
    (1.9715909503065514427e3, 6.8718700749205790830e2),
    (1.3731693765509461125e4, 5.3941960214247511077e3),
    (4.5921953931549871457e4, 2.1213794301586595867e4),
    (6.7265770927008700853e4, 3.9307895800092710610e4),
    (3.3430575583588128105e4, 2.8729085735721942674e4),
    (2.5090809287301226727e3, 5.2264952788528545610e3),
)
_SHOULDER = (
    (1.42343711074968357734, 1.0),
    (4.63033784615654529590, 2.05319162663775882187),
    (5.76949722146069140550, 1.67638483018380384940),
    (3.64784832476320460504, 6.89767334985100004550e-1),
    (1.27045825245236838258, 1.48103976427480074590e-1),
    (2.41780725177450611770e-1, 1.51986665636164571966e-2),
    (2.27238449892691845833e-2, 5.47593808499534494600e-4),
    (7.74545014278341407640e-4, 1.05075007164441684324e-9),
)
_TAIL = (
    (6.65790464350110377720, 1.0),
    (5.46378491116411436990, 5.99832206555887937690e-1),
    (1.78482653991729133580, 1.36929880922735805310e-1),
    (2.96560571828504891230e-1, 1.48753612908506148525e-2),
    (2.65321895265761230930e-2, 7.86869131145613259100e-4),
    (1.24266094738807843860e-3, 1.84631831751005468180e-5),
    (2.71155556874348757815e-5, 1.42151175831644588870e-7),
    (2.01033439929228813265e-7, 2.04426310338993978564e-15),
)


def quantile(p: Floats) -> Floats:
    """Returns the quantiles of the standard normal distribution.

    Args:
        p: Probabilities in (0, 1/2]. The upper half follows by symmetry; a double has
            full relative precision only in the lower half.

    Returns:
        Array of the shape of `p`, with a relative error of about 1e-16.
    """
    offset = p - 0.5
    x = offset * _ratio(_CENTRE, 0.180625 - offset * offset)
    far = p < 0.075
    r = np.sqrt(-np.log(p[far]))
    shoulder = _ratio(_SHOULDER, r - 1.6)
    # About one in 4 * 10^10 of the uniforms.
    in_tail = r > 5
    shoulder[in_tail] = _ratio(_TAIL, r[in_tail] - 5)
    x[far] = -shoulder
    return x


def log_tail(z: float) -> float:
    """Returns the log of the probability that a standard normal deviate is >= `z`."""
    if z < 0:
        return log1p(-erfc(-z / sqrt(2)) / 2)
    if z < 30:
        return log(erfc(z / sqrt(2)) / 2)
    # The probability itself underflows from about z = 38 on, so its logarithm is
    # computed from the asymptotic series of erfc.
    series, term = 1.0, 1.0
    for odd in (1, 3, 5, 7, 9, 11):
        term *= -odd / z**2
        series += term
    return log(series) - z**2 / 2 - log(z * sqrt(2 * pi))


def _ratio(fraction: tuple[tuple[float, float], ...], x: Floats) -> Floats:
    """Returns the ratio of two polynomials, evaluated by Horner's rule."""
    numerator, denominator = np.zeros_like(x), np.zeros_like(x)
    for above, below in reversed(fraction):
        numerator *= x
        numerator += above
        denominator *= x
        denominator += below
    return numerator / denominator
