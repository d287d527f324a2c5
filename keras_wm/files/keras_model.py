"""Weights and config of a Keras model in memory, without importing Keras."""

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
    """A variable of a model, with the interface of a stored array."""

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
    """Returns the weights of a model.

    Args:
        model: A Keras model.

    Returns:
        The weights in the order of `model.weights`; for quantized layers and layers
        with LoRA, the effective ones. The name of each layer is preceded by the names
        of the models that contain it.
    """
    layers: list[tuple[str, dict[str, _Variable]]] = []
    for weight in model.weights:
        variable = _as_stored(weight)
        layer, _, name = variable.path.rpartition("/")
        # Two layers of a model can have the same name.
        if not layers or layers[-1][0] != layer or name in layers[-1][1]:
            layers.append((layer, {}))
        layers[-1][1][name] = variable
    names = dict(_layer_names(model, ""))
    facts = _layer_facts(model)
    return [
        weight
        for path, variables in layers
        for weight in weights_of_layer(
            _full_name(path, variables, names), variables, facts.get(path, NO_FACTS)
        )
    ]


def config_in_memory(model: KerasModel) -> Any:
    """Returns a model's config as a file stores it, or `None` if it has none."""
    try:
        return {"class_name": type(model).__name__, "config": model.get_config()}
    except NotImplementedError:  # Keras raises it for a subclassed model.
        return None


def _layer_names(model: Any, prefix: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """Iterates over the variables of a model.

    Args:
        model: The model.
        prefix: Names of the models that contain it, each followed by a slash.

    Yields:
        The id of a variable, with the name of its layer and the prefix of the layer.
    """
    for layer in getattr(model, "layers", []):
        if hasattr(layer, "layers"):
            yield from _layer_names(layer, f"{prefix}{layer.name}/")
        else:
            for variable in layer.weights:
                yield id(variable), (layer.name, prefix)


def _full_name(
    path: str, variables: dict[str, _Variable], names: dict[int, tuple[str, str]]
) -> str:
    """Returns the name of a layer, preceded by the names of the models around it.

    The path of a variable contains only the models that existed when the layer was
    built.

    Args:
        path: Path of the layer's variables.
        variables: The layer's variables.
        names: Name and prefix of the layer of each variable, by the variable's id.
    """
    first = next(iter(variables.values()))
    name, prefix = names.get(id(first.variable), ("", ""))
    _, separator, inside = f"/{path}/".partition(f"/{name}/")
    if not name or not separator:
        return path
    return f"{prefix}{name}/{inside}".removesuffix("/")


def _as_stored(weight: Any) -> _Variable:
    return _Variable(
        weight,
        path=getattr(weight, "path", weight.name).removesuffix(":0"),
        shape=tuple(int(axis) for axis in weight.shape),
        dtype=str(getattr(weight.dtype, "name", weight.dtype)),
    )


def _layer_facts(model: Any) -> dict[str, LayerFacts]:
    """Returns the facts about layers that are quantized or have LoRA, by path.

    Only these have several arrays for one kernel.
    """
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
