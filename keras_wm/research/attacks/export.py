"""Export: writing a network to a file in one of Keras's formats, and reading it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras

from keras_wm.research.attacks.architecture import fresh_network
from keras_wm.research.attacks.attack import Attack, Change
from keras_wm.research.attacks.equivalence import weights_of
from keras_wm.research.datasets import Examples

_HALVES = ("bfloat16", "float16")


def _written(suffix: str) -> Change:
    """Writes a network, or its weights alone, and reads that."""

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
                    f"{model.name!r} cannot be read again from {suffix}: {error}"
                ) from error

    return change


def _halved(dtype: str) -> Change:
    """Has a network of half precision written and read, and computes in full again."""

    def change(model: Any, data: Examples | None, strength: float, seed: int) -> Any:
        half = type(model).from_config(_in(dtype, model.get_config()))
        _take_over(model, half)
        _take_over(_written(".keras")(half, data, strength, seed), model)
        return model

    return change


def _in(dtype: str, config: Any) -> Any:
    """A config whose layers have another type, and no weights that are drawn.

    Not every way to draw them is there for every type.
    """
    if isinstance(config, dict):
        if config.get("module") == "keras.initializers":
            return keras.initializers.serialize(keras.initializers.Zeros())
        return {
            name: dtype if (name, value) == ("name", "float32") else _in(dtype, value)
            for name, value in config.items()
        }
    return [_in(dtype, one) for one in config] if type(config) is list else config


def _take_over(source: Any, model: Any) -> None:
    weights = weights_of(source)
    for name, variable in weights_of(model).items():
        variable.assign(keras.ops.cast(weights[name], variable.dtype))


def _attack(name: str, title: str, change: Change) -> Attack:
    return Attack(name, title, "round trips", (1,), change)


FILES = tuple(
    _attack(f"export-{name}", f"Writes and reads {what}.", _written(suffix))
    for name, what, suffix in (
        ("keras", "a .keras file", ".keras"),
        ("h5", "an .h5 file", ".h5"),
        ("weights", "a .weights.h5 file", ".weights.h5"),
    )
)
HALVES = tuple(
    _attack(
        f"export-{dtype}", f"Writes and reads a network of {dtype}.", _halved(dtype)
    )
    for dtype in _HALVES
)
