"""Checks of arguments."""

from __future__ import annotations


def is_integer(value: object, least: int) -> bool:
    """Returns whether an argument is an integer of at least `least`, not a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless an argument is one of the possible values."""
    if value not in choices:
        raise ValueError(
            f"Expected one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}"
        )
