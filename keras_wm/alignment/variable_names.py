"""Names of a layer's weights, independent of the names that a file uses.

Files of Keras 3 number the weights, and Keras 2 used other names for some of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_wm.files import Kernel

# Layers with the axes of their kernel (..., inputs, filters).
KERNEL_LAYERS = {"Dense", "Conv1D", "Conv2D", "Conv3D"}
# Layers with the axes of their kernel (..., channels, filters per channel).
DEPTHWISE_LAYERS = {"DepthwiseConv1D", "DepthwiseConv2D"}


def arrays_by_variable(
    kind: str, config: Mapping[str, Any], arrays: Sequence[Kernel]
) -> dict[str, list[Kernel]]:
    """Returns the arrays of a layer by the names of its variables in Keras 3.

    Args:
        kind: Name of the layer's class.
        config: The layer's config.
        arrays: The stored arrays of the layer.

    Returns:
        The arrays of each variable: usually one, several if a stored array can be read
        in several ways. Empty for layers whose channels cannot be followed.
    """
    named: dict[str, list[Kernel]] = {}
    if kind in KERNEL_LAYERS | DEPTHWISE_LAYERS:
        for array in arrays:
            variable = "kernel" if len(array.shape) > 1 else "bias"
            named.setdefault(variable, []).append(array)
        # Several arrays must be readings of the same variable, not two kernels.
        if len({array.variable for array in named.get("kernel", [])}) > 1:
            return {}
    elif kind == "BatchNormalization":
        names = _normalization_names(config, [array.variable for array in arrays])
        for array in arrays if names else ():
            named.setdefault(names[array.variable], []).append(array)
    return named


def _normalization_names(
    config: Mapping[str, Any], stored: Sequence[str]
) -> dict[str, str]:
    """Returns the names of a batch normalization's variables, by their stored names.

    Returns an empty dictionary if the number of variables does not fit the config.
    """
    if not all(map(str.isdecimal, stored)):
        return {name: name for name in stored}
    names = [
        *(["gamma"] if config.get("scale", True) else []),
        *(["beta"] if config.get("center", True) else []),
        *("moving_mean", "moving_variance"),
    ]
    numbers = sorted(stored, key=int)
    return dict(zip(numbers, names, strict=True)) if len(numbers) == len(names) else {}
