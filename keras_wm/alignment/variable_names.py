"""Names of a layer's weights, independent of the names that a file uses.

Files of Keras 3 number the weights, and Keras 2 used other names for some of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

# Layers with the axes of their kernel (..., inputs, filters).
KERNEL_LAYERS = {"Dense", "Conv1D", "Conv2D", "Conv3D"}
# Layers with the axes of their kernel (..., channels, filters per channel).
DEPTHWISE_LAYERS = {"DepthwiseConv1D", "DepthwiseConv2D"}


class StoredArray(Protocol):
    """An array of a layer in a model file."""

    @property
    def variable(self) -> str:
        """Name of the variable in the layer, or its number."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""


Array = TypeVar("Array", bound=StoredArray)


def arrays_by_variable(
    kind: str, config: Mapping[str, Any], arrays: Sequence[Array]
) -> dict[str, list[Array]]:
    """Returns the arrays of a layer by the names of its variables in Keras 3.

    Args:
        kind: Name of the layer's class.
        config: The layer's config.
        arrays: The stored arrays of the layer.

    Returns:
        The arrays of each variable: usually one, several if a stored array can be read
        in several ways. Empty for layers whose channels cannot be followed.
    """
    named: dict[str, list[Array]] = {}
    if kind in KERNEL_LAYERS | DEPTHWISE_LAYERS:
        for array in arrays:
            variable = "kernel" if len(array.shape) > 1 else "bias"
            named.setdefault(variable, []).append(array)
        # Several arrays must be readings of the same variable, not two kernels.
        if len({array.variable for array in named.get("kernel", [])}) > 1:
            return {}
    elif kind == "BatchNormalization":
        names = _normalization_names(config, arrays)
        for name, array in zip(names, arrays, strict=True) if names else ():
            named.setdefault(name, []).append(array)
    return named


def _normalization_names(
    config: Mapping[str, Any], arrays: Sequence[StoredArray]
) -> list[str]:
    """Returns the names of a batch normalization's arrays.

    Returns an empty list if the number of arrays does not fit the config.
    """
    stored = [array.variable for array in arrays]
    if not all(map(str.isdecimal, stored)):
        return stored
    names = [
        *(["gamma"] if config.get("scale", True) else []),
        *(["beta"] if config.get("center", True) else []),
        *("moving_mean", "moving_variance"),
    ]
    by_number = dict(zip(sorted(stored, key=int), names, strict=False))
    if len(stored) != len(names):
        return []
    return [by_number[number] for number in stored]
