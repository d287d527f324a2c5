"""The marked layers of a model, and whether their marks are being trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_wm.embedding.lora import (
    MergedKernelPenalty,
    is_factor,
    mark_merged_kernel,
    merged_kernel,
    trained_factor,
)
from keras_wm.embedding.regularizer import WatermarkRegularizer, compute_dtype

_KerasDistiller = keras.distillation.Distiller


@dataclass(frozen=True)
class MarkedLayer:
    """A layer with a kernel that carries, or should carry, a mark's penalty.

    Attributes:
        layer: The Keras layer.
        variable: The kernel's variable, or `None` if the layer has lost it.
        regularizer: The penalty.
        problem: The reason why the mark is not being trained, or an empty string.
    """

    layer: Any
    variable: Any
    regularizer: WatermarkRegularizer
    problem: str

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)

    @property
    def kernel(self) -> Any:
        """The kernel as it would be saved, in float32 or float64.

        `None` if the layer has lost it, or has integers in its place.
        """
        variable = self.variable
        if variable is None or not keras.backend.is_float_dtype(variable.dtype):
            return None
        kernel = merged_kernel(self.layer, variable)
        return ops.cast(kernel, compute_dtype(kernel))


def check_is_model(model: Any) -> None:
    """Raises TypeError unless an object is a Keras model."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a keras.Model. Received: {type(model).__name__}. "
            "Load a file with keras.saving.load_model first."
        )


def find_marked_layers(model: Any) -> list[MarkedLayer]:
    """Returns the marked layers of a model, also those of nested models.

    Args:
        model: A Keras model or layer. For a distiller, its student is searched.

    Returns:
        A list of `MarkedLayer` in the order of the model's layers, one per kernel. A
        mark that is no longer trained, because its layer was frozen, reloaded, cloned,
        quantized or given LoRA factors, is listed with its `problem`.
    """
    distiller_problem = ""
    if isinstance(model, _KerasDistiller):
        if type(model).compute_loss is _KerasDistiller.compute_loss:
            distiller_problem = (
                "keras.distillation.Distiller ignores the penalties of its student; "
                "use keras_wm.Distiller"
            )
        model = model.student
    trained = {id(variable) for variable in model.trainable_weights}
    marked: dict[int, MarkedLayer] = {}
    for layer in sublayers(model):
        for variable, regularizer in _penalties(layer):
            problem = _problem(layer, variable, regularizer, trained)
            mark = MarkedLayer(
                layer, variable, regularizer, distiller_problem or problem
            )
            # A variable that several layers share is listed once.
            marked.setdefault(id(layer if variable is None else variable), mark)
    return list(marked.values())


def trained_scope(
    model: Any, values: Sequence[Any] | None
) -> AbstractContextManager[Any]:
    """Returns a scope in which a model's trainable variables have other values.

    Args:
        model: A Keras model.
        values: The values of `model.trainable_variables`, in this order, or `None` for
            the model's own.

    Raises:
        ValueError: If the number of values differs from that of the variables.
    """
    if values is None:
        return nullcontext()
    variables = model.trainable_variables
    if len(variables) != len(values):
        raise ValueError(
            f"Expected the values of the {len(variables)} trainable variables of "
            f"{model.name!r}, in the order of model.trainable_variables. Received: "
            f"{len(values)} values."
        )
    scope: AbstractContextManager[Any] = keras.StatelessScope(
        list(zip(variables, values, strict=True))
    )
    return scope


def warn_of_shared_slots(model: Any) -> None:
    """Warns of kernels of one shape that carry the mark of one key in the same slot."""
    layers: dict[tuple[Any, ...], list[MarkedLayer]] = {}
    for marked in find_marked_layers(model):
        if marked.variable is not None:
            mark, shape = marked.regularizer, tuple(marked.variable.shape)
            layers.setdefault((mark.commitment, mark.slot, shape), []).append(marked)
    for (_, slot, shape), same in layers.items():
        if len(same) > 1:
            names = [marked.name for marked in same]
            if len(set(names)) < len(names):
                names = [marked.variable.path.rpartition("/")[0] for marked in same]
            warnings.warn(
                f"The layers {', '.join(map(repr, names))} have kernels of the same "
                f"shape {shape} and carry the mark in the same slot {slot}. Their "
                "kernels become correlated, which anybody can measure without the key. "
                "Give each of them another slot: slot=0, slot=1 and so on. For the "
                "second direction of Bidirectional, pass backward_layer=.",
                stacklevel=3,
            )


def sublayers(model: Any) -> list[Any]:
    """Returns a model or layer itself and every layer in it, nested ones too, once."""
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def is_built(model: Any) -> bool:
    """Returns whether every layer of a model has its weights."""
    return all(layer.built for layer in sublayers(model))


def rebuild_steps(model: Any) -> None:
    """Recompiles a model's steps, since compiled ones keep the losses they had."""
    for layer in sublayers(model):
        if getattr(layer, "train_function", None) is not None:
            layer.make_train_function(force=True)
        if getattr(layer, "test_function", None) is not None:
            layer.make_test_function(force=True)


def mark_merged_kernels(model: Any) -> bool:
    """Moves the penalties of kernels with LoRA factors to the merged kernels.

    Returns:
        Whether a penalty was moved, so that compiled steps have to be rebuilt.
    """
    moved = [
        mark_merged_kernel(marked.layer, marked.variable)
        for marked in find_marked_layers(model)
        if marked.variable is not None
    ]
    return any(moved)


def own_variables(layer: Any) -> list[Any]:
    """Returns a layer's variables without those of its sublayers."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def held_regularizers(layer: Any) -> dict[str, WatermarkRegularizer]:
    """Returns the attributes of a layer that hold a mark's regularizer, by name."""
    return {
        name: value
        for name, value in vars(layer).items()
        if isinstance(value, WatermarkRegularizer)
    }


def set_attribute(owner: Any, name: str, value: Any, undo: ExitStack) -> None:
    """Sets an attribute whose old value is restored when `undo` is closed."""
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def replace_penalties(
    model: Any, replacement: Callable[[WatermarkRegularizer], Any]
) -> ExitStack:
    """Replaces the marks' regularizers wherever a model holds them.

    Keras holds a regularizer in two places: on the variable (for the loss) and on the
    layer (for its config).

    Args:
        model: A Keras model or layer.
        replacement: Function that returns the replacement of a regularizer.

    Returns:
        A stack that undoes the replacements when it is closed.
    """
    undo = ExitStack()
    for layer in sublayers(model):
        for variable in own_variables(layer):
            regularizer = variable.regularizer
            if isinstance(regularizer, MergedKernelPenalty):
                regularizer = regularizer.mark
            if isinstance(regularizer, WatermarkRegularizer):
                new = replacement(regularizer)
                set_attribute(variable, "regularizer", new, undo)
        for name, regularizer in held_regularizers(layer).items():
            set_attribute(layer, name, replacement(regularizer), undo)
    return undo


def _penalties(layer: Any) -> Iterator[tuple[Any, WatermarkRegularizer]]:
    """Yields the marked variables of a layer with their regularizers."""
    for variable in own_variables(layer):
        regularizer = variable.regularizer
        if isinstance(regularizer, WatermarkRegularizer) and not is_factor(variable):
            yield variable, regularizer
    held = held_regularizers(layer)
    if not held or not layer.built:
        return
    # A layer can hold a regularizer on behalf of the layers inside it.
    on_variables = {
        id(variable.regularizer)
        for sublayer in sublayers(layer)
        for variable in own_variables(sublayer)
    }
    for name, regularizer in held.items():
        if id(regularizer) not in on_variables:
            yield _named_variable(layer, name), regularizer


def _named_variable(layer: Any, attribute: str) -> Any:
    """Returns the variable that `<name>_regularizer` is meant for, or `None`."""
    name = attribute.removesuffix("_regularizer").strip("_")
    return next((item for item in own_variables(layer) if item.name == name), None)


def _problem(
    layer: Any, variable: Any, regularizer: WatermarkRegularizer, trained: set[int]
) -> str:
    """Returns why a mark is not being trained, or an empty string if it is."""
    if regularizer.key is None:
        return (
            "its key was not loaded when the model was loaded or cloned. Load the key "
            "first, with keras_wm.WatermarkKey.load"
        )
    if variable is None or variable.regularizer is not regularizer:
        return (
            "its kernel no longer has the penalty, because the layer was quantized or "
            "its kernel replaced"
        )
    factor = trained_factor(layer, variable)
    if factor is not None:
        if not isinstance(factor.regularizer, MergedKernelPenalty):
            return (
                "LoRA froze its kernel, and its penalty is not on the merged kernel "
                "yet, where keras_wm.BitErrorRate() moves it"
            )
        variable = factor
    if id(variable) not in trained:
        return "its layer is frozen (trainable=False)"
    return ""
