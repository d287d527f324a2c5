"""The regularizer that embeds a key's message while a model trains."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from typing import Any, Self, get_args

import keras
import numpy as np
from keras import ops

from keras_wm.embedding.kernel_projection import KernelProjection, Loss
from keras_wm.embedding.key_scope import find_key
from keras_wm.embedding.moments import Moments, advance
from keras_wm.scheme.key import WatermarkKey

# The papers' lambda for the cross-entropy; for the margin what was measured to embed
# within a fifth of a training and to leave the weights' distribution alone.
DEFAULT_STRENGTH = {"margin": 1e-4, "crossentropy": 1e-2}
LORA_PREFIX = "lora_"


@keras.saving.register_keras_serializable(package="keras_wm")
class WatermarkRegularizer(keras.regularizers.Regularizer):
    r"""Embeds the message of a key into the kernel it regularizes.

    Each bit is read as \(y_j = x_j \cdot W a_j\), with X and a from the key, and
    one of two penalties pulls it to its side, \(s_j = 2 b_j - 1\):

    - `"margin"`: \(\lambda \sum_j \max(0, m - z_j)^2\), where
      \(z_j = s_j y_j / \lVert W a_j \rVert\) and the norm is held constant in the
      gradient. It does not depend on the scale of the weights, and once every bit
      stands m standard deviations clear it leaves them alone. Its gradient is
      corrected so that the mark changes neither the spread of the weights nor
      their kurtosis nor the sixth moment, and of keyed filters not their mean: see
      `keras_wm.embedding.moments`.
    - `"crossentropy"`: \(\lambda \sum_j \mathrm{BCE}(\sigma(y_j), b_j)\), the sum
      over bits that the papers train on (Uchida et al. 2017, equations 3 and 4;
      their tables print the mean per bit).

    The penalty is a part of `loss`, `val_loss` and `evaluate()`: let
    `EarlyStopping` and `ModelCheckpoint` monitor a metric, not `val_loss`.

    Args:
        key: The `WatermarkKey` to embed.
        loss: `"margin"` or `"crossentropy"`. Defaults to `"margin"`.
        strength: The factor \(\lambda\). Defaults to 1e-4 for the margin and to
            0.01 for the cross-entropy.
        margin: m, in standard deviations of the score of an unmarked kernel.
            `None` is what the kernel has room for unseen, at most 4.
        regularizer: The host's own regularizer for the same kernel, such as
            `"l2"`, which is added. Defaults to `None`.

    Raises:
        TypeError: If `key` is not a `WatermarkKey`.
        ValueError: If another argument is out of range, or, at the first call,
            if the kernel cannot carry the message.

    Example:

    ```python
    key = keras_wm.WatermarkKey.generate("Example Ltd")
    layer = keras.layers.Conv2D(
        128, 3, kernel_regularizer=keras_wm.WatermarkRegularizer(key)
    )
    ```

    The object may serve several layers. The key is never a part of its config:
    see `keras_wm.keys` for loading a model that holds it, and
    `keras_wm.publish` for saving one without a trace.
    """

    def __init__(
        self,
        key: WatermarkKey,
        loss: Loss = "margin",
        strength: float | None = None,
        margin: float | None = None,
        regularizer: Any = None,
    ) -> None:
        if not isinstance(key, WatermarkKey):
            raise TypeError(
                "Expected a WatermarkKey, from WatermarkKey.generate or .load. "
                f"Received: key of type {type(key).__name__}"
            )
        self._key: WatermarkKey | None = key
        self._commitment = key.commitment
        self._configure(loss, strength, margin, regularizer)

    @property
    def key(self) -> WatermarkKey | None:
        """The key, or `None` if this was loaded without it and embeds nothing."""
        return self._key

    @property
    def regularizer(self) -> Any:
        """The host's own regularizer, or `None`."""
        return self._regularizer

    def __call__(self, x: Any) -> Any:
        # Keras adds penalties to a loss of this type, whatever the layer's is.
        dtype = keras.config.floatx()
        host_penalty = 0.0 if self._regularizer is None else self._regularizer(x)
        penalty = ops.cast(host_penalty, dtype)
        if self._key is None or self._is_lora_factor(x):
            return penalty
        kernel = ops.cast(x, compute_dtype(x))
        mark = self.strength * ops.sum(self.bit_losses(kernel))
        return penalty + ops.cast(mark, dtype)

    def bit_losses(self, kernel: Any) -> Any:
        r"""The loss of each bit, without the factor \(\lambda\).

        Args:
            kernel: Float tensor of rank 2 or more, filters last.

        Returns:
            Tensor of shape `(T,)`. The papers' E_R per bit is its mean.
        """
        reading = self._reading(tuple(kernel.shape))
        if self.loss == "crossentropy":
            y, _ = reading.signed_outputs(kernel)
            # softplus(-s y) is the binary cross-entropy of sigmoid(y) from logits:
            # finite for any y, where log(sigmoid(y)) is not.
            return ops.softplus(-y)
        # Holding the moments would cost a large kernel several times its step.
        moments = None if reading.negligible else self._moments(kernel)
        y, norm = reading.signed_outputs(moments.held(kernel) if moments else kernel)
        z = y / norm
        missing = ops.relu(reading.margin - z)
        losses = ops.square(missing)
        if moments is None:
            return losses
        more = ops.stop_gradient(2.0 * missing * advance(z, reading.margin))
        return losses + more * moments.noise(kernel)

    def get_config(self) -> dict[str, Any]:
        """Everything but the key, of which only the commitment is given.

        It never raises: Keras opens its target before it asks, so that an error
        here would leave an empty file where a good one was.
        """
        return {
            "commitment": self._commitment,
            "loss": self.loss,
            "strength": self.strength,
            "margin": self.margin,
            "regularizer": _serialized(self._regularizer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the regularizer, with its key if that is at hand.

        See `keras_wm.keys`. Without the key the regularizer is inert: only the
        host's own penalty remains, and a warning says so.
        """
        config = dict(config)
        commitment = config.pop("commitment")
        regularizer = cls.__new__(cls)
        regularizer._key = find_key(commitment)
        regularizer._commitment = commitment
        regularizer._configure(**config)
        if regularizer._key is None:
            warnings.warn(
                "A WatermarkRegularizer was rebuilt without its key (commitment "
                f"{commitment[:8]}) and embeds nothing: training would not keep the "
                "mark. To go on marking, load or clone the model inside "
                "`with keras_wm.keys(key):`, or call keras_wm.attach.",
                stacklevel=2,
            )
        return regularizer

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        twin._key, twin._commitment = self._key, self._commitment
        twin._configure(self.loss, self.strength, self.margin, self._regularizer)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle goes the way of the config, so that it carries no secret either.
        return type(self).from_config, (self.get_config(),)

    def __repr__(self) -> str:
        inert = "" if self._key else ", inert: its key is not at hand"
        return (
            f"<WatermarkRegularizer {self._commitment[:8]}: loss={self.loss!r}, "
            f"strength={self.strength:g}{inert}>"
        )

    def _configure(
        self,
        loss: Loss,
        strength: float | None,
        margin: float | None,
        regularizer: Any,
    ) -> None:
        if loss not in get_args(Loss):
            raise ValueError(
                f"Expected 'margin' or 'crossentropy'. Received: loss={loss!r}"
            )
        if margin is not None and loss != "margin":
            raise ValueError(
                "A margin belongs to loss='margin'. "
                f"Received: margin={margin!r} with loss={loss!r}"
            )
        self.loss: Loss = loss
        self.strength = _positive(
            "strength", DEFAULT_STRENGTH[loss] if strength is None else strength
        )
        self.margin = None if margin is None else _positive("margin", margin)
        self._regularizer = keras.regularizers.get(regularizer)
        if isinstance(self._regularizer, WatermarkRegularizer):
            raise ValueError(
                "A kernel carries one mark. Expected the host's own regularizer, "
                "such as 'l2'. Received: another WatermarkRegularizer."
            )
        # The model it was attached to, whose steps were compiled anew then.
        self.attached_to: weakref.ref[Any] | None = None
        self._readings: dict[tuple[int, ...], KernelProjection] = {}
        self._kernel_shapes: set[tuple[int, ...]] = set()
        self._lora_shapes: set[tuple[int, ...]] = set()

    def _moments(self, kernel: Any) -> Moments:
        # Keyed signs are balanced, so that what they read has no part in the mean.
        return Moments(kernel, self._key is not None and self._key.filters == "keyed")

    def _reading(self, shape: tuple[int, ...]) -> KernelProjection:
        """The constants of a kernel's shape, made once."""
        if shape not in self._readings:
            assert self._key is not None  # noqa: S101 (for the type checker)
            self._readings[shape] = KernelProjection.for_shape(
                self._key, shape, self.loss, self.margin
            )
        return self._readings[shape]

    def _is_lora_factor(self, x: Any) -> bool:
        """Whether x is one of the factors that `enable_lora` put beside a kernel.

        Keras gives both factors the kernel's regularizer. JAX passes bare arrays
        while it trains, but variables when it builds, so shapes are remembered;
        one that a kernel has too counts as the kernel's.
        """
        shape, name = tuple(x.shape), getattr(x, "name", None)
        if isinstance(name, str) and isinstance(x, keras.Variable):
            if not name.startswith(LORA_PREFIX):
                self._kernel_shapes.add(shape)
                return False
            if shape not in self._lora_shapes:
                self._lora_shapes.add(shape)
                warnings.warn(
                    "LoRA trains two factors beside a frozen kernel: the mark in the "
                    "kernel gets no penalty, and none is put on the factors. Merge "
                    "LoRA, or embed before enabling it.",
                    stacklevel=3,
                )
            return True
        return shape in self._lora_shapes - self._kernel_shapes


def compute_dtype(x: Any) -> str:
    """Float32 at least: in half precision the sum over bits would be lost."""
    return (
        "float64"
        if keras.backend.standardize_dtype(x.dtype) == "float64"
        else "float32"
    )


def _positive(name: str, value: float) -> float:
    if not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
        raise ValueError(f"Expected a positive number. Received: {name}={value!r}")
    return float(value)


def _serialized(regularizer: Any) -> Any:
    try:
        return keras.regularizers.serialize(regularizer) if regularizer else None
    except Exception as error:
        # Not even where warnings are errors may this raise: see get_config.
        with contextlib.suppress(UserWarning):
            warnings.warn(
                f"The host's regularizer {regularizer!r} cannot be serialized "
                f"({error}) and will be missing from the saved model.",
                stacklevel=2,
            )
        return None
