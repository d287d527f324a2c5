"""The weights of a Keras model in memory, without importing Keras."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts
from keras_wm.files.contents import Kernel
from keras_wm.files.kernels.layer_weights import weights_of_layer


@runtime_checkable
class KerasModel(Protocol):
    """A Keras model in memory: the part of its interface that is used here.

    A protocol, because files are read without importing Keras.
    """

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def weights(self) -> Sequence[Any]:
        """The model's variables, in Keras's order."""

    def get_config(self) -> Any:
        """Returns the model's config as plain data."""


@dataclass(frozen=True)
class _Variable:
    """A variable of a model, as an array that is stored of a layer."""

    variable: Any
    path: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_float(self) -> bool:
        return len(self.shape) > 0 and "float" in self.dtype

    def read(self) -> NDArray[Any]:
        values = np.asarray(self.variable.numpy())
        return values if values.dtype.kind in "iu" else values.astype(np.float64)


def weights_in_memory(model: KerasModel) -> list[Kernel]:
    """The weights of a model, those of quantized layers and of LoRA effective.

    Args:
        model: A Keras model.

    Returns:
        The weights, in the order of the model's own, each under its layer's name
        behind those of the models that it is nested in.
    """
    names = dict(_names(model, ""))
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
        weight
        for layer, variables in layers
        for weight in weights_of_layer(
            _within(names, layer, variables), variables, facts.get(layer, NO_FACTS)
        )
    ]


def config_in_memory(model: KerasModel) -> Any:
    """A model's config as in a file, or `None` where it has none."""
    try:
        return {"class_name": type(model).__name__, "config": model.get_config()}
    except NotImplementedError:  # What Keras raises for a model that is a class.
        return None


def _names(model: Any, prefix: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """By a variable's id, its layer's name and what stands before that."""
    for layer in getattr(model, "layers", []):
        if hasattr(layer, "layers"):
            yield from _names(layer, f"{prefix}{layer.name}/")
        else:
            for variable in layer.weights:
                yield id(variable), (layer.name, prefix)


def _within(
    names: dict[int, tuple[str, str]], path: str, variables: dict[str, _Variable]
) -> str:
    """A layer's name behind those of the models it is in.

    A path tells only those of the models that were there when the layer was built.
    """
    (first, *_) = variables.values()
    name, prefix = names.get(id(first.variable), ("", ""))
    _, found, inside = f"/{path}/".partition(f"/{name}/")
    return f"{prefix}{name}/{inside}".removesuffix("/") if name and found else path


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
