"""Lists of fields as bytes that determine them, to be hashed."""

from __future__ import annotations


def join_fields(*fields: bytes | int | str) -> bytes:
    """Returns all fields as bytes, each after its length.

    The lengths ensure that different lists of fields give different bytes.
    """
    encoded = [
        field if isinstance(field, bytes) else str(field).encode() for field in fields
    ]
    return b"".join(len(field).to_bytes(8, "big") + field for field in encoded)
