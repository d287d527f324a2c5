"""Forging: keys made for existing weights, to claim somebody else's model.

The network is not changed. If the projection can be chosen freely, any message can be
read from any weights (Fan et al. 2019). If it is derived from a secret, a forger can
only try secrets until one fits by chance: the best of n has a p-value of about 1/n.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_wm.scheme.detection import detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import SecretSource
from keras_wm.utils.arrays import Floats

_SECONDS_PER_YEAR = 365.25 * 24 * 3600


def solved_key(kernel: Floats, bits: int, seed: int) -> WatermarkKey:
    """Returns an explicit key that reads a message from an unmarked kernel.

    Every row of X is drawn from N(0, 1), as in an honest key, and its sign is flipped
    if it reads the wrong bit. X alone does not reveal this.

    Args:
        kernel: The weights, filters last.
        bits: Length T of the message.
        seed: Random seed of the message and of X.
    """
    rng = np.random.default_rng(seed)
    mean_filter = kernel.mean(axis=-1).reshape(-1)
    message = rng.integers(0, 2, bits)
    matrix = rng.normal(size=(bits, mean_filter.size))
    read = matrix @ mean_filter > 0
    matrix[read != message] *= -1
    return WatermarkKey.from_arrays(matrix, message)


def searched_keys(
    kernel: Floats, bits: int, trials: int, seed: int
) -> Iterator[tuple[WatermarkKey, float]]:
    """Tests keys of random secrets on a kernel.

    Args:
        kernel: The weights, filters last.
        bits: Length T of the message.
        trials: Number of secrets.
        seed: Random seed of the secrets.

    Yields:
        A key, and log10 of its p-value.
    """
    rng = np.random.default_rng(seed)
    for _ in range(trials):
        secret = Secret(rng.bytes(32))
        key = WatermarkKey(SecretSource(secret, "forger", bits, "random", "keyed"))
        yield key, detect(kernel, key).log10_p


def years_of_search(p: float, seconds_per_key: float) -> float:
    """Returns the expected years until one core finds a key with a p-value below `p`.

    The search tests 1 / p keys on average.
    """
    return seconds_per_key / p / _SECONDS_PER_YEAR
