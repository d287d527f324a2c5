"""The kernels of a Keras model in memory, without importing Keras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.kernel import Kernel
from keras_wm.files.layer_arrays import kernels_of_layer
from keras_wm.files.layer_facts import NO_FACTS, LayerFacts


@dataclass(frozen=True)
class _Variable:
    """A variable of a model, as an array that is stored of a layer."""

    variable: Any
    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def may_be_kernel(self) -> bool:
        return len(self.shape) > 1 and "float" in self.dtype

    def read(self) -> NDArray[Any]:
        values = np.asarray(self.variable.numpy())
        return values if values.dtype.kind in "iu" else values.astype(np.float64)


def kernels_in_memory(model: Any) -> list[Kernel]:
    """The kernels of a model, those of quantized layers and of LoRA effective.

    Args:
        model: A Keras model.

    Returns:
        The kernels, in the order of the model's weights.
    """
    layers: list[tuple[str, dict[str, _Variable]]] = []
    for weight in model.weights:
        variable = _as_stored(weight)
        layer, _, name = variable.path.rpartition("/")
        # Two layers of a model may share a name.
        if not layers or layers[-1][0] != layer or name in layers[-1][1]:
            layers.append((layer, {}))
        layers[-1][1][name] = variable
    facts = _facts(model)
    return [
        kernel
        for layer, variables in layers
        for kernel in kernels_of_layer(layer, variables, facts.get(layer, NO_FACTS))
    ]


def _as_stored(weight: Any) -> _Variable:
    return _Variable(
        weight,
        path=getattr(weight, "path", weight.name).removesuffix(":0"),
        shape=tuple(int(axis) for axis in weight.shape),
        dtype=str(getattr(weight.dtype, "name", weight.dtype)),
    )


def _facts(model: Any) -> dict[str, LayerFacts]:
    """What layers say of themselves that have more than one array for a kernel."""
    flatten = getattr(model, "_flatten_layers", None)
    layers = flatten() if flatten is not None else []
    return {
        getattr(layer, "path", layer.name): LayerFacts.from_config(
            {"config": layer.get_config(), "build_config": layer.get_build_config()}
        )
        for layer in layers
        if getattr(layer, "lora_alpha", None) is not None
        or getattr(layer, "quantization_mode", None) is not None
    }
