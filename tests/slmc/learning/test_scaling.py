"""Power laws are fitted to the right points."""

import pytest

from keras_wm.slmc.learning.scaling import Point, power_law


def test_the_exponent_is_the_slope_of_the_logarithms():
    points = [
        Point(seed, blocks, size, 5.0 * size**-1.5, 0.1, 0.5, 0.1)
        for seed in range(2)
        for blocks, size in enumerate((7, 28, 49, 70))
    ]
    law = power_law(points)
    assert law.exponent == pytest.approx(-1.5)
    assert law.factor == pytest.approx(5.0)
    assert law.error == pytest.approx(0.0, abs=1e-6)
    # A linear model that is off the line is left out.
    outlier = Point(0, 0, 7, 100.0, 0.1, 0.1, 0.1)
    law = power_law([outlier, *points[1:]], min_blocks=1)
    assert law.exponent == pytest.approx(-1.5)
    with pytest.raises(ValueError, match="three models"):
        power_law(points, min_blocks=3)
