"""Checks of the fields of a key."""

from __future__ import annotations

import unicodedata

from keras_wm.utils.arguments import is_integer


def checked_name(field: str, name: object) -> str:
    """Returns the name of an owner or a recipient in one Unicode form.

    Args:
        field: `"owner"` or `"recipient"`.
        name: The name.

    Raises:
        ValueError: If it is not a string, or empty.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(
            f"Expected the name of the key's {field}, a non-empty string. Received: "
            f"{field}={name!r}"
        )
    # The same name can be written with different code points.
    return unicodedata.normalize("NFC", name)


def checked_bits(bits: object) -> None:
    """Raises ValueError unless T is a positive integer."""
    if not is_integer(bits, 1):
        raise ValueError(f"Expected an integer of at least 1. Received: bits={bits!r}")
