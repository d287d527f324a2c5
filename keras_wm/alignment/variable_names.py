"""What the weights of a layer are called, whatever a file calls them.

Keras 3 numbers them in its files, and Keras 2 called some otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from keras_wm.alignment.tracing import DEPTHWISE, WITH_KERNEL


class Named(Protocol):
    """An array of a layer."""

    @property
    def variable(self) -> str:
        """Its name in the layer, or its number."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""


Array = TypeVar("Array", bound=Named)


def by_variable(
    kind: str, config: Mapping[str, Any], arrays: Sequence[Array]
) -> dict[str, list[Array]]:
    """The arrays of a layer by the names that Keras 3 has for its variables.

    Args:
        kind: The name of the layer's class.
        config: The layer's config.
        arrays: What is stored of it.

    Returns:
        The arrays that each variable may be; one, mostly. Of a layer whose channels
        are not followed there are none.
    """
    found: dict[str, list[Array]] = {}
    if kind in WITH_KERNEL | DEPTHWISE:
        for one in arrays:
            found.setdefault("kernel" if len(one.shape) > 1 else "bias", []).append(one)
        # Several readings of one variable will do.
        if len({one.variable for one in found.get("kernel", [])}) > 1:
            return {}
    elif kind == "BatchNormalization":
        names = _normalizations(config, arrays)
        for name, one in zip(names, arrays, strict=True) if names else ():
            found.setdefault(name, []).append(one)
    return found


def _normalizations(config: Mapping[str, Any], arrays: Sequence[Named]) -> list[str]:
    """The names of a normalization's arrays; none if there are others than expected."""
    given = [one.variable for one in arrays]
    if not all(map(str.isdecimal, given)):
        return given
    names = [
        *(["gamma"] if config.get("scale", True) else []),
        *(["beta"] if config.get("center", True) else []),
        *("moving_mean", "moving_variance"),
    ]
    by_number = dict(zip(sorted(given, key=int), names, strict=False))
    return [by_number[one] for one in given] if len(given) == len(names) else []
