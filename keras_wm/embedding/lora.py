"""Marking the merged kernel of a layer that LoRA fine-tunes."""

from __future__ import annotations

import weakref
from typing import Any

import keras

from keras_wm.embedding.regularizer import LORA_PREFIX, WatermarkRegularizer


class MergedKernelPenalty(keras.regularizers.Regularizer):
    r"""Penalty of a LoRA factor B, computed on the merged kernel.

    `enable_lora` freezes a kernel W and trains two factors A and B instead. The model
    computes and saves \(W + \frac{\alpha}{r} A B\), so this is what has to carry the
    mark. Keras only asks variables that are trained for a penalty, so it is set on B.

    It is never saved: Keras saves regularizers of layers, and this is one of a
    variable.

    Args:
        mark: The regularizer of the kernel.
        layer: The layer with the factors.
        name: The layer's attribute that returns the merged kernel.

    Attributes:
        mark: The regularizer of the kernel.
    """

    def __init__(self, mark: WatermarkRegularizer, layer: Any, name: str) -> None:
        self.mark = mark
        # The layer holds the variable that holds this.
        self._layer, self._name = weakref.ref(layer), name

    def __call__(self, x: Any) -> Any:
        """Returns the host's own penalty of a factor and the mark's of the kernel."""
        # On JAX, the layer's variables are those of the current step here.
        merged = getattr(self._layer(), self._name)
        return self.mark.host_penalty(x) + self.mark.mark_penalty(merged)


def is_factor(variable: Any) -> bool:
    """Returns whether a variable is a factor that `enable_lora` added."""
    return bool(variable.name.startswith(LORA_PREFIX))


def merged_kernel(layer: Any, variable: Any) -> Any:
    """Returns a kernel with the product of the layer's LoRA factors, if it has any."""
    if not getattr(layer, "lora_enabled", False):
        return variable
    return getattr(layer, variable.name)


def trained_factor(layer: Any, variable: Any) -> Any:
    """Returns the LoRA factor B of a kernel, or `None` if it has none."""
    return getattr(layer, f"{LORA_PREFIX}{variable.name}_b", None)


def lora_factors(layer: Any, variable: Any) -> tuple[Any, Any, float] | None:
    """Returns the LoRA factors of a kernel and the scale of their product, if any."""
    b = trained_factor(layer, variable)
    if b is None:
        return None
    a = getattr(layer, f"{LORA_PREFIX}{variable.name}_a")
    return a, b, layer.lora_alpha / layer.lora_rank


def mark_merged_kernel(layer: Any, variable: Any) -> bool:
    """Moves the penalty of a kernel with LoRA factors to its factor B.

    Args:
        layer: The layer that holds the kernel.
        variable: The kernel's variable, with the mark's regularizer.

    Returns:
        Whether anything was changed.
    """
    mark, factor = variable.regularizer, trained_factor(layer, variable)
    # A quantized kernel has lost its regularizer.
    if factor is None or not isinstance(mark, WatermarkRegularizer):
        return False
    present = factor.regularizer
    if isinstance(present, MergedKernelPenalty) and present.mark is mark:
        return False
    factor.regularizer = MergedKernelPenalty(mark, layer, variable.name)
    other = getattr(layer, f"{LORA_PREFIX}{variable.name}_a")
    # Keras gave the kernel's regularizer to both factors.
    if isinstance(other.regularizer, WatermarkRegularizer):
        other.regularizer = mark.regularizer
    return True
