"""Forged evidence: the key and arguments that a forger presents, and their cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import SecretSource
from keras_wm.verification.result import Verification
from keras_wm.verification.verification import verify

BITS = 64
_SECONDS_PER_YEAR = 365.25 * 24 * 3600


@dataclass(frozen=True)
class Forgery:
    """A key, a model, and arguments of `verify` that were chosen after the model.

    Attributes:
        model: The model file, or the Keras model, that the forger claims.
        key: The key that he presents.
        arguments: Further arguments of `verify`.
        tries: Number of keys or choices that he tried.
        seconds: Time of one try.
        is_search: Whether more tries make the p-value smaller.
    """

    model: Any
    key: WatermarkKey
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tries: int = 1
    seconds: float = 0.0
    is_search: bool = False

    def verify(self) -> Verification:
        """Returns the verifier's report on it."""
        return verify(self.model, self.key, **self.arguments)


def fresh_key(seed: int, bits: int = BITS, owner: str = "forger") -> WatermarkKey:
    """Returns a derived key with a secret that depends on a seed."""
    secret = Secret(np.random.default_rng(seed).bytes(32))
    return WatermarkKey(
        SecretSource(secret, owner, bits, "random", "keyed"), limited=False
    )


def core_years(p: float, seconds: float) -> float:
    """Returns the expected years until one core makes a p-value below `p`.

    The search makes 1 / p tries on average.
    """
    return seconds / p / _SECONDS_PER_YEAR
