"""Where in a model the marks are, and whether they are being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_wm.embedding.regularizer import (
    LORA_PREFIX,
    WatermarkRegularizer,
    compute_dtype,
)

_KerasDistiller = keras.distillation.Distiller


@dataclass(frozen=True)
class MarkedLayer:
    """A kernel that carries, or should carry, a watermark penalty.

    Attributes:
        layer: The Keras layer.
        variable: The kernel, or `None` where the layer has lost it.
        regularizer: The penalty.
        problem: Why the penalty does not act, or an empty string if it does.
    """

    layer: Any
    variable: Any
    regularizer: WatermarkRegularizer
    problem: str = ""

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)

    @property
    def kernel(self) -> Any:
        """The kernel as it would be saved, in float32 at least.

        `None` where the layer has lost it, or holds integers in its place.
        """
        if self.variable is None or not keras.backend.is_float_dtype(
            self.variable.dtype
        ):
            return None
        # With LoRA, a layer's `kernel` is the frozen one with the factors' product.
        merged = getattr(self.layer, "lora_enabled", False)
        kernel = self.layer.kernel if merged else self.variable
        return ops.cast(kernel, compute_dtype(kernel))


def find_marked_layers(model: Any) -> list[MarkedLayer]:
    """All marks of a model, those of nested models too, in the order of its layers.

    Args:
        model: A Keras model or layer.

    Returns:
        A list of `MarkedLayer`, each kernel once. A mark that does not act any more,
        because its layer was frozen, reloaded, cloned, quantized or given LoRA
        factors, is listed with its problem. Of a distiller, those of the student.
    """
    unheeded = ""
    if isinstance(model, _KerasDistiller):
        if type(model).compute_loss is _KerasDistiller.compute_loss:
            unheeded = (
                "keras.distillation.Distiller leaves out the penalties of its "
                "student; use keras_wm.Distiller"
            )
        model = model.student
    trained = {id(variable) for variable in model.trainable_weights}
    marks: dict[int, MarkedLayer] = {}
    for layer in sublayers(model):
        for variable, regularizer in _penalties(layer):
            problem = unheeded or _problem(layer, variable, regularizer, trained)
            key = id(layer) if variable is None else id(variable)
            marks.setdefault(key, MarkedLayer(layer, variable, regularizer, problem))
    return list(marks.values())


def sublayers(model: Any) -> Iterator[Any]:
    """A model and every layer in it, however deep, each once."""
    seen: set[int] = set()
    for layer in model._flatten_layers():
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer


def is_built(model: Any) -> bool:
    """Whether every layer of a model has its weights."""
    return all(layer.built for layer in sublayers(model))


def rebuild_steps(model: Any) -> None:
    """Compiles a model's steps anew: the old ones go on with the losses of before."""
    for layer in sublayers(model):
        if getattr(layer, "train_function", None) is not None:
            layer.make_train_function(force=True)
        if getattr(layer, "test_function", None) is not None:
            layer.make_test_function(force=True)


def own_variables(layer: Any) -> list[Any]:
    """A layer's variables without those of its sublayers."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def held_regularizers(layer: Any) -> Iterator[tuple[str, WatermarkRegularizer]]:
    """The attributes of a layer that hold a mark's regularizer, with their names."""
    for name, value in vars(layer).items():
        if isinstance(value, WatermarkRegularizer):
            yield name, value


def replace_penalties(
    model: Any, replacement: Callable[[WatermarkRegularizer], Any]
) -> list[Callable[[], None]]:
    """Puts something else wherever a model holds a mark's regularizer.

    Keras holds it in two places: on the variable (the loss), and on the layer (its
    config).

    Args:
        model: A Keras model or layer.
        replacement: What takes a regularizer's place.

    Returns:
        What undoes it, one function for each place.
    """
    undo: list[Callable[[], None]] = []

    def put(owner: Any, name: str, value: WatermarkRegularizer) -> None:
        undo.append(lambda: setattr(owner, name, value))
        setattr(owner, name, replacement(value))

    for layer in sublayers(model):
        for variable in own_variables(layer):
            if isinstance(variable.regularizer, WatermarkRegularizer):
                put(variable, "regularizer", variable.regularizer)
        for name, regularizer in list(held_regularizers(layer)):
            put(layer, name, regularizer)
    return undo


def _penalties(layer: Any) -> Iterator[tuple[Any, WatermarkRegularizer]]:
    """The kernels of a layer with their regularizers, however they are held."""
    found = [
        (variable, variable.regularizer)
        for variable in own_variables(layer)
        if isinstance(variable.regularizer, WatermarkRegularizer)
        and not variable.name.startswith(LORA_PREFIX)
    ]
    yield from found
    held = list(held_regularizers(layer))
    if not held or not layer.built:
        return
    # A layer may hold a regularizer for the layers inside it.
    carried = {
        id(variable.regularizer)
        for sublayer in sublayers(layer)
        for variable in own_variables(sublayer)
    }
    for name, regularizer in held:
        if id(regularizer) not in carried:
            yield _orphan(layer, name), regularizer


def _orphan(layer: Any, attribute: str) -> Any:
    """The variable that should carry what `kernel_regularizer` says, if any."""
    target = attribute.removesuffix("_regularizer").strip("_")
    for variable in own_variables(layer):
        if variable.name == target:
            return variable
    return None


def _problem(
    layer: Any, variable: Any, regularizer: WatermarkRegularizer, trained: set[int]
) -> str:
    if regularizer.key is None:
        return (
            "its key is not at hand: the model was loaded or cloned outside "
            "`with keras_wm.keys(key):`"
        )
    if variable is None or variable.regularizer is not regularizer:
        return (
            "its kernel carries no penalty any more: the layer was quantized or its "
            "kernel replaced"
        )
    if getattr(layer, "lora_enabled", False):
        return "LoRA froze its kernel"
    if id(variable) not in trained:
        return "its layer is frozen (trainable=False)"
    return ""
