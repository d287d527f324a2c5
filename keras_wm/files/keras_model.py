"""Weights and config of a Keras model in memory, without importing Keras."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.config.layer_facts import NO_FACTS, LayerFacts
from keras_wm.files.contents import Kernel, Stored
from keras_wm.files.kernels.layer_weights import weights_of_layer


@runtime_checkable
class KerasModel(Protocol):
    """A Keras model in memory: the part of its interface that is used here.

    A protocol, because files are read without importing Keras.
    """

    name: str
    weights: Sequence[Any]

    def get_config(self) -> Any:
        """Returns the model's config as plain data."""


def weights_in_memory(model: KerasModel) -> list[Kernel]:
    """Returns the weights of a model.

    Args:
        model: A Keras model.

    Returns:
        The weights in the order of `model.weights`; for quantized layers and layers
        with LoRA, the effective ones. The name of each layer is preceded by the names
        of the models that contain it.
    """
    names = dict(_layer_names(model, ""))
    facts = _layer_facts(model)
    # Path, full name and variables of each layer.
    layers: list[tuple[str, str, dict[str, Stored]]] = []
    for weight in model.weights:
        path = _path_of(weight)
        layer, _, variable = path.rpartition("/")
        # Two layers of a model can have the same name.
        if not layers or layers[-1][0] != layer or variable in layers[-1][2]:
            full_name = _full_name(layer, *names.get(id(weight), ("", "")))
            layers.append((layer, full_name, {}))
        layers[-1][2][variable] = _as_stored(weight, path)
    return [
        weight
        for path, full_name, variables in layers
        for weight in weights_of_layer(full_name, variables, facts.get(path, NO_FACTS))
    ]


def arrays_in_memory(model: KerasModel) -> list[Stored]:
    """Returns the variables of a model as they are, see `Contents.arrays`."""
    return [_as_stored(weight, _path_of(weight)) for weight in model.weights]


def config_in_memory(model: KerasModel) -> Any:
    """Returns a model's config as a file stores it, or `None` if it has none."""
    try:
        return {"class_name": type(model).__name__, "config": model.get_config()}
    except NotImplementedError:  # Keras raises it for a subclassed model.
        return None


def _layer_names(model: Any, prefix: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yields the id of each variable, and the name and the prefix of its layer.

    The prefix consists of the names of the models around the layer, each with a slash.
    """
    for layer in getattr(model, "layers", []):
        if hasattr(layer, "layers"):
            yield from _layer_names(layer, f"{prefix}{layer.name}/")
        else:
            for variable in layer.weights:
                yield id(variable), (layer.name, prefix)


def _full_name(path: str, name: str, prefix: str) -> str:
    """Returns the name of a layer, preceded by the names of the models around it.

    The path of its variables contains only the models that existed when the layer was
    built.
    """
    _, separator, inside = f"/{path}/".partition(f"/{name}/")
    if not name or not separator:
        return path
    return f"{prefix}{name}/{inside}".removesuffix("/")


def _path_of(variable: Any) -> str:
    return str(getattr(variable, "path", variable.name)).removesuffix(":0")


def _as_stored(variable: Any, path: str) -> Stored:
    def read() -> NDArray[Any]:
        values = np.asarray(variable.numpy())
        return values if values.dtype.kind in "iu" else values.astype(np.float64)

    shape = tuple(int(axis) for axis in variable.shape)
    dtype = str(getattr(variable.dtype, "name", variable.dtype))
    return Stored(path, shape, dtype, read)


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
