"""Export: saving a network in one of Keras's file formats, and loading it again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras

from keras_wm.files.config.nodes import rewrite
from keras_wm.research.attacks.architecture import assign, fresh_network, weights_of
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


def _saved_with_type(dtype: str) -> Change:
    """Returns a change that rounds weights by saving and loading them as this type."""

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        half = type(model).from_config(_with_dtype(dtype, model.get_config()))
        assign(half, weights_of(model))
        assign(model, weights_of(_saved_as(".keras")(half, data, strength, seed)))
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


ATTACKS = tuple(
    Attack(f"export-{name}", f"Saves and loads {content}.", "round trips", (1,), change)
    for name, content, change in (
        ("keras", "a .keras file", _saved_as(".keras")),
        ("h5", "an .h5 file", _saved_as(".h5")),
        ("weights", "a .weights.h5 file", _saved_as(".weights.h5")),
        ("bfloat16", "the network in bfloat16", _saved_with_type("bfloat16")),
        ("float16", "the network in float16", _saved_with_type("float16")),
    )
)
