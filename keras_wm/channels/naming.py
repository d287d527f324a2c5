"""What the weights of a layer are called, whatever a file calls them.

Keras 3 numbers them in its files, and Keras 2 called some otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from keras_wm.channels.tracing import DEPTHWISE, WITH_KERNEL


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
    if kind in WITH_KERNEL | DEPTHWISE:
        matrices = [one for one in arrays if len(one.shape) > 1]
        return {
            "kernel": matrices if _is_one(matrices) else [],
            "bias": [one for one in arrays if len(one.shape) == 1],
        }
    if kind != "BatchNormalization":
        return {}
    found: dict[str, list[Array]] = {}
    if not all(one.variable.isdecimal() for one in arrays):
        for one in arrays:
            found.setdefault(one.variable, []).append(one)
        return found
    names = [
        *(["gamma"] if config.get("scale", True) else []),
        *(["beta"] if config.get("center", True) else []),
        *("moving_mean", "moving_variance"),
    ]
    if len(names) != len(arrays):
        return {}
    in_order = sorted(arrays, key=lambda one: int(one.variable))
    return {name: [one] for name, one in zip(names, in_order, strict=True)}


def _is_one(arrays: Iterable[Named]) -> bool:
    """Whether arrays are the same variable, perhaps in several readings."""
    return len({one.variable for one in arrays}) == 1
