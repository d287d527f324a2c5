"""Text that is safe to print."""

from __future__ import annotations


def printable(text: str, most: int = 200) -> str:
    """Returns untrusted text with escaped control characters.

    Args:
        text: Text from a file, which could contain a terminal's control sequences.
        most: Number of characters that are kept.
    """
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in text[:most]
    )
