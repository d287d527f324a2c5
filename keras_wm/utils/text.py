"""Text that is safe to print."""

from __future__ import annotations


def printable(text: str, most: int = 200) -> str:
    """Text from a file, without what could steer a terminal."""
    text = text[:most]
    if text.isprintable():
        return text
    odd = [character for character in set(text) if not character.isprintable()]
    return text.translate(
        {ord(one): one.encode("unicode_escape").decode() for one in odd}
    )
