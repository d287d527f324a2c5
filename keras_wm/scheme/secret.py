"""The secret of a key, and how everything else is derived from it.

The derivation is specified in docs/key.md and pinned by test vectors: a key
made today has to verify with any NumPy, on any machine, in ten years.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import NoReturn

SECRET_SIZE = 32
_DOMAIN = "keras_wm key 1"


class Secret:
    """32 bytes that nobody else has, and that show themselves nowhere.

    A class, not `bytes`, so that no repr, log line or traceback with local
    variables prints them, and no pickle or deep copy carries them away.
    """

    __slots__ = ("_bytes",)

    def __init__(self, value: bytes) -> None:
        if not isinstance(value, bytes) or len(value) != SECRET_SIZE:
            raise ValueError(
                f"A secret is {SECRET_SIZE} bytes. Received another value."
            )
        self._bytes = value

    @classmethod
    def generate(cls) -> Secret:
        """A new secret from the operating system's random source."""
        return cls(secrets.token_bytes(SECRET_SIZE))

    def expand(self, size: int, label: str, *parameters: int | str) -> bytes:
        """The first `size` bytes of SHAKE-256 over the secret, a label and a shape.

        Args:
            size: How many bytes.
            label: What the bytes are for. Streams of different labels or
                parameters are independent.
            *parameters: What the thing derived depends on.
        """
        absorbed = _fields(_DOMAIN, self._bytes, label, *parameters)
        return hashlib.shake_256(absorbed).digest(size)

    def derive(self, label: str, *parameters: int | str) -> Secret:
        """Another secret, from which nothing leads back to this one."""
        return Secret(self.expand(SECRET_SIZE, label, *parameters))

    def commit(self, *parameters: int | str) -> str:
        """SHA-256 over the secret and parameters, as 64 hexadecimal digits."""
        absorbed = _fields(_DOMAIN, self._bytes, "commitment", *parameters)
        return hashlib.sha256(absorbed).hexdigest()

    def reveal(self) -> str:
        """The secret itself, in hexadecimal, for the key file alone."""
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
        raise TypeError("A secret is not pickled. Save the key with key.save(path).")


def _fields(*fields: bytes | int | str) -> bytes:
    """Fields, each behind its length, so that no two lists of them look alike."""
    encoded = [
        field if isinstance(field, bytes) else str(field).encode() for field in fields
    ]
    return b"".join(len(field).to_bytes(8, "big") + field for field in encoded)
