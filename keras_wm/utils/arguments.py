"""Checks of arguments."""

from __future__ import annotations


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless an argument is one of the possible values."""
    if value not in choices:
        raise ValueError(
            f"Expected one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}"
        )
