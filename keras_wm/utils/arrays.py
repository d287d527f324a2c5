"""Types of arrays, and arrays that cannot be changed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the same array, made read-only."""
    array.flags.writeable = False
    return array
