"""The secret of a key, and the byte streams that are derived from it.

The derivation is specified in docs/key.md and pinned by test vectors: a key that is
made today must verify in ten years, on any machine, with any version of NumPy.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import lru_cache
from typing import NoReturn

from keras_wm.utils.fields import join_fields

SECRET_SIZE = 32
_DOMAIN = "keras_wm key 2"
# Parameters of scrypt (RFC 7914). A root takes about 40 ms and 16 MiB. Each trial of a
# search for a key that fits a given model costs as much.
_ROOT_COST = {"n": 2**14, "r": 8, "p": 1}


class Secret:
    """The 32 secret bytes of a key.

    A class instead of `bytes`, so that no repr, log line or traceback with local
    variables shows them, and no pickle or deep copy contains them.

    Args:
        value: The 32 bytes.
    """

    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        if not isinstance(value, bytes) or len(value) != SECRET_SIZE:
            # The value is not printed: it may be a secret with a typing error.
            raise ValueError(
                f"Expected a secret of {SECRET_SIZE} bytes. Received another value."
            )
        self._bytes = value

    @classmethod
    def generate(cls) -> Secret:
        """Returns a new secret from the operating system's random source."""
        return cls(secrets.token_bytes(SECRET_SIZE))

    def expand(self, size: int, label: str, *parameters: int | str) -> bytes:
        """Returns the first bytes of a stream that is derived from the secret.

        The stream is SHAKE-256 of the secret, the label and the parameters. Streams
        with different labels or parameters are independent.

        Args:
            size: Number of bytes.
            label: Purpose of the stream, such as `"message"`.
            *parameters: Values that the derived quantity depends on.
        """
        absorbed = join_fields(_DOMAIN, self._bytes, label, *parameters)
        return hashlib.shake_256(absorbed).digest(size)

    def root(self, *choices: int | str) -> Secret:
        """Returns the root of a key: scrypt of the secret, with all choices as salt.

        Another choice gives an unrelated root. Nobody can therefore try choices without
        the cost of scrypt for each trial.

        Args:
            *choices: The public choices of the key, or an anchor's digest.
        """
        return _root(self, *choices)

    def derive(self, label: str, *parameters: int | str) -> Secret:
        """Returns another secret, from which this one cannot be computed."""
        return Secret(self.expand(SECRET_SIZE, label, *parameters))

    def commit(self, *parameters: int | str) -> str:
        """Returns SHA-256 of the secret and the parameters, in hexadecimal."""
        absorbed = join_fields(_DOMAIN, self._bytes, "commitment", *parameters)
        return hashlib.sha256(absorbed).hexdigest()

    def reveal(self) -> str:
        """Returns the secret in hexadecimal. Only the key file may contain it."""
        return self._bytes.hex()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._bytes, other._bytes)

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A secret cannot be pickled. Save the key with key.save(path) instead."
        )


# A program that loads a key again and again computes its root once.
@lru_cache(64)
def _root(secret: Secret, *choices: int | str) -> Secret:
    salt = join_fields(_DOMAIN, *choices)
    root = hashlib.scrypt(secret._bytes, salt=salt, **_ROOT_COST, dklen=SECRET_SIZE)
    return Secret(root)
