"""Export: saving a network in one of Keras's file formats, and loading it again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras

from keras_wm.files.config.nodes import rewrite
from keras_wm.research.attacks.architecture import fresh_network, weights_of
from keras_wm.research.attacks.attack import Attack, Change
from keras_wm.research.datasets import Examples


def _saved_as(suffix: str) -> Change:
    """Returns a change that saves a network, or its weights, and loads that file."""

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"exported{suffix}")
            if suffix == ".weights.h5":
                network = fresh_network(model)
                model.save_weights(file)
                network.load_weights(file)
                return network
            model.save(file)
            try:
                return keras.saving.load_model(file, compile=False)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{model.name!r} cannot be loaded again from {suffix}: {error}"
                ) from error

    return change


def _saved_in_half_precision(dtype: str) -> Change:
    """Returns a change that saves and loads a network in half precision.

    The result computes in full precision again.
    """

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        half = type(model).from_config(_with_dtype(dtype, model.get_config()))
        _copy_weights(model, half)
        _copy_weights(_saved_as(".keras")(half, data, strength, seed), model)
        return model

    return change


def _with_dtype(dtype: str, config: Any) -> Any:
    """Returns a copy of a config whose layers have another data type.

    All initializers become zeros, because some of them do not support every type.
    """

    def converted(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        if part.get("module") == "keras.initializers":
            return keras.initializers.serialize(keras.initializers.Zeros())
        return part | {"name": dtype} if part.get("name") == "float32" else part

    return rewrite(config, converted)


def _copy_weights(source: Any, target: Any) -> None:
    weights = weights_of(source)
    for name, variable in weights_of(target).items():
        variable.assign(keras.ops.cast(weights[name], variable.dtype))


def _attack(name: str, title: str, change: Change) -> Attack:
    return Attack(name, title, "round trips", (1,), change)


FILES = tuple(
    _attack(f"export-{name}", f"Saves and loads {content}.", _saved_as(suffix))
    for name, content, suffix in (
        ("keras", "a .keras file", ".keras"),
        ("h5", "an .h5 file", ".h5"),
        ("weights", "a .weights.h5 file", ".weights.h5"),
    )
)
HALVES = tuple(
    _attack(
        f"export-{dtype}",
        f"Saves and loads the network in {dtype}.",
        _saved_in_half_precision(dtype),
    )
    for dtype in ("bfloat16", "float16")
)
