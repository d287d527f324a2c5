"""Checks of values that come from another party's claim."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from keras_wm.errors import ClaimError
from keras_wm.utils.arguments import is_integer
from keras_wm.utils.text import printable

_HEX = re.compile("[0-9a-f]{64}")
_MOST_CHARS = 1000
_SHOWN_CHARS = 100
# Numbers fit into 64 bits with a sign.
_MOST = 2**63 - 1


def unexpected(name: str, expected: str, value: object) -> ClaimError:
    """Returns the error for a value of a claim."""
    shown = printable(repr(value), _SHOWN_CHARS)
    return ClaimError(f"Expected {expected}. Received: {name}={shown}")


def check_digest(name: str, value: object) -> None:
    """Raises ClaimError unless a value is a SHA-256 digest in hexadecimal."""
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise unexpected(name, "64 hexadecimal digits in lower case", value)


def check_text(name: str, value: object) -> None:
    """Raises ClaimError unless a value is text that can be stored and compared."""
    valid = (
        isinstance(value, str)
        and 0 < len(value.strip()) <= len(value) <= _MOST_CHARS
        # Surrogates and control characters.
        and not any(unicodedata.category(char) in ("Cs", "Cc") for char in value)
        and unicodedata.is_normalized("NFC", value)
    )
    if not valid:
        expected = (
            f"text of 1 to {_MOST_CHARS} characters, in Unicode's form NFC and without "
            "control characters"
        )
        raise unexpected(name, expected, value)


def check_flag(name: str, value: object) -> None:
    """Raises ClaimError unless a value is true or false."""
    if not isinstance(value, bool):
        raise unexpected(name, "true or false", value)


def check_count(name: str, value: object, least: int, most: int = _MOST) -> None:
    """Raises ClaimError unless a value is an integer within bounds."""
    if not is_integer(value, least) or value > most:  # type: ignore[operator]
        raise unexpected(name, f"an integer from {least} to {most}", value)


def check_kind(name: str, value: object, kind: type[Any], optional: bool) -> None:
    """Raises ClaimError unless a value has a type, or is `None` and optional."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise unexpected(name, f"a {kind.__name__}", value)


def check_tuple(name: str, value: object, kind: type[Any], most: int) -> None:
    """Raises ClaimError unless a value is a tuple of at most `most` values."""
    if not isinstance(value, tuple) or len(value) > most:
        raise unexpected(name, f"at most {most} values", value)
    for member in value:
        check_kind(name, member, kind, optional=False)
