"""The regularizer that embeds a key's message into a kernel during training."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from math import prod
from typing import Any, Self, get_args

import keras
import numpy as np
from keras import ops

from keras_wm.embedding.key_scope import find_key, is_without_keys
from keras_wm.embedding.loss.kernel_projection import KernelProjection, Loss
from keras_wm.embedding.loss.margin_loss import margin_loss, steps_between
from keras_wm.scheme.anchor import Anchor
from keras_wm.scheme.key import WatermarkKey, check_key

# The cross-entropy's strength is the papers' lambda. The margin's suits a training of
# about 1,000 steps with momentum, for loops without a `BitErrorRate`.
DEFAULT_STRENGTH = {"margin": 1e-4, "crossentropy": 1e-2}
# Names of the factors that Keras's `enable_lora` adds to a layer.
LORA_PREFIX = "lora_"


@keras.saving.register_keras_serializable(package="keras_wm")
class WatermarkRegularizer(keras.regularizers.Regularizer):
    r"""Regularizer that embeds the message of a key into the kernel of a layer.

    The kernel W, of shape `(..., L)`, is read as a matrix of M x L weights: L filters
    of M weights each. Bit j of the message is the sign of

    \[y_j = x_j \cdot W a_j\]

    where the projection \(x_j\) and the filter weights \(a_j\) are derived from the
    key. One of two embedding losses moves every bit to its side,
    \(s_j = 2 b_j - 1 = \pm 1\):

    - `"margin"`: \(\lambda \sum_j \max(0, m - z_j)^2\) with the score
      \(z_j = s_j y_j / \lVert W a_j \rVert\) of bit j, in standard deviations of the
      score of an unmarked kernel. The norm is held constant in the gradient. The loss
      does not depend on the scale of the weights, and it is 0 as soon as every score
      has reached the margin m. Its gradient is corrected so that the mark does not
      change the variance, the kurtosis or the sixth moment of the weights and, with
      keyed filters, not their mean: see `keras_wm.embedding.loss.moments`.
    - `"crossentropy"`: \(\lambda \sum_j \mathrm{BCE}(\sigma(y_j), b_j)\), the loss
      of [Uchida et al. (2017)](https://doi.org/10.1145/3078971.3078974), equations 3
      and 4. They train on the sum over the bits; their tables show the mean per bit.

    A large kernel gets the margin loss in a random part of the training steps, which
    saves most of its cost: in one of k steps on average, multiplied by the root of k,
    and 0 in the others. For N weights, k is N / 131,072, at most 8. The weights decide
    which steps these are, so that all replicas agree, and resumed training repeats it.

    Without a given strength, `keras_wm.BitErrorRate` embeds the mark by steps of its
    own between those of the optimizer, and turns this penalty off, see
    `keras_wm.embedding.loss.decoupled_step`. No optimizer, no schedule and no training
    step that leaves out the penalties then has a part in it.

    Otherwise the penalty is part of `loss`, `val_loss` and the loss that `evaluate()`
    returns: with the default strength at most 0.2 for 64 bits, and about 0 for a
    complete mark. In `val_loss`, that of a large kernel is either 0 or too large by the
    root of k.

    One regularizer can be shared by several layers of different shapes. Each of them
    then carries the whole message. Layers of one shape need a slot each, because with
    the same projection their kernels would be correlated.

    A network whose regularizer is given to the constructor of a layer is not marked
    until it is trained. `keras_wm.publish(model, "before.keras")`, called right after
    it was built, saves the `checkpoint` of `keras_wm.verify`.

    The key is never part of the regularizer's config, only its commitment. A model that
    is cloned, copied or loaded finds the key again if a `WatermarkKey` object of it is
    alive in the process (see `keras_wm.keys`). `keras_wm.publish` saves a model without
    any trace of the key.

    Args:
        key: The `WatermarkKey` to embed.
        loss: The embedding loss, `"margin"` or `"crossentropy"`. Defaults to
            `"margin"`.
        strength: The factor \(\lambda\) of the embedding loss in the training loss, a
            positive float, which stays fixed. Defaults to `None`. The cross-entropy
            then uses the papers' `1e-2`. The margin loss uses `1e-4`, and with a
            `keras_wm.BitErrorRate` among the callbacks, steps of its own: these embed
            the mark within half of the planned steps, at the latest after 1,000.
        margin: The score m that training aims at for every bit, in standard deviations
            of the score of an unmarked kernel. Only for `loss="margin"`. Defaults to
            the largest margin that the kernel can hold unseen, at most 4, with an
            anchor at most 6.
        regularizer: The host network's own regularizer of the same kernel, which is
            added: a `keras.regularizers.Regularizer`, a function or a name such as
            `"l2"`. Defaults to `None`.
        slot: Number of the key's slot, see `WatermarkKey.in_slot`. Defaults to the
            slot of `key`, which is 0 unless it was changed.
        anchor: The `keras_wm.Anchor` that the kernel is read through, see
            `keras_wm.measure_anchor`. It is kept in the key's slot, and in the file
            beside the key file. Defaults to the anchor that the slot has; without one,
            the mark fills all directions of the weights alike.

    Raises:
        TypeError: If `key` is not a `WatermarkKey`.
        ValueError: If another argument is out of range or, in the first call, if the
            kernel cannot carry the message.

    The first call warns if the kernel is so small that the mark will be weak or
    visible.

    Attributes:
        key: The key, or `None` if this was loaded without its key and is inactive.
        commitment: The key's commitment, also if the key is not loaded.
        slot: Number of the key's slot.
        anchor: Digest of the key's anchor in this slot, or an empty string.
        strength: The factor \(\lambda\).
        decoupled: Whether `keras_wm.BitErrorRate` embeds the mark by steps of its own,
            because the user gave no strength.
        regularizer: The host network's own regularizer, or `None`.

    Example:

    ```python
    key = keras_wm.WatermarkKey.generate("Example Ltd")
    model = keras.Sequential([
        keras.Input((32, 32, 3)),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.Conv2D(
            128,
            3,
            activation="relu",
            kernel_regularizer=keras_wm.WatermarkRegularizer(key),
        ),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    ```
    """

    def __init__(
        self,
        key: WatermarkKey,
        loss: Loss = "margin",
        strength: float | None = None,
        margin: float | None = None,
        regularizer: Any = None,
        slot: int | None = None,
        anchor: Anchor | None = None,
    ) -> None:
        check_key(key)
        if slot is not None:
            key = key.in_slot(slot)
        digest = key.anchor_digest if anchor is None else anchor.digest
        settings = (loss, strength, margin, regularizer, key.slot, digest)
        self._configure(key, key.commitment, *settings)
        if anchor is not None:
            key.add_anchor(anchor)

    def __call__(self, x: Any) -> Any:
        """Returns the penalty of a kernel, a scalar tensor.

        Args:
            x: The kernel, a float tensor of rank 2 or more, filters last.
        """
        if self._is_lora_factor(x):
            return self.host_penalty(x)
        return self.host_penalty(x) + self.mark_penalty(x)

    def host_penalty(self, kernel: Any) -> Any:
        """Returns the penalty of the host's own regularizer, a scalar tensor."""
        weights = value_of(kernel)
        penalty = 0.0 if self.regularizer is None else self.regularizer(weights)
        # Keras adds penalties to a loss of type floatx, whatever the layer's type is.
        return ops.cast(penalty, keras.config.floatx())

    def mark_penalty(self, kernel: Any) -> Any:
        r"""Returns the penalty of the mark alone: \(\lambda\) times the embedding loss.

        Args:
            kernel: Float tensor of rank 2 or more, filters last.

        Returns:
            A scalar tensor, 0 without the key and while the mark has steps of its own.
        """
        if self.key is None or self.is_off:
            return ops.cast(0.0, keras.config.floatx())
        weights = value_of(kernel)
        loss = self._embedding_loss(ops.cast(weights, compute_dtype(weights)))
        return ops.cast(self.strength * loss, keras.config.floatx())

    def scores(self, kernel: Any) -> tuple[Any, float]:
        """Returns the scores of all bits, shape `(T,)`, and the margin.

        Args:
            kernel: Float tensor of rank 2 or more, filters last.
        """
        projection = self.projection(kernel.shape)
        y, norm = projection.signed_outputs(kernel)
        return y / norm, projection.margin

    def projection(self, shape: tuple[int, ...]) -> KernelProjection:
        """Returns the projection of kernels of one shape, derived once."""
        shape = tuple(shape)
        if shape not in self._projections:
            assert self.key is not None  # noqa: S101 (for the type checker)
            self._projections[shape] = KernelProjection.for_shape(
                self.key, shape, self.loss, self.margin
            )
        return self._projections[shape]

    def bit_losses(self, kernel: Any) -> Any:
        r"""Returns the embedding loss of each bit, without the factor \(\lambda\).

        Args:
            kernel: Float tensor of rank 2 or more, filters last.

        Returns:
            Tensor of shape `(T,)`. For the cross-entropy, its mean is the papers'
            \(E_R\) per bit.

        Raises:
            ValueError: If the kernel cannot carry the message.
        """
        if self.loss == "crossentropy":
            y, _ = self.projection(kernel.shape).signed_outputs(kernel)
            # softplus(-s y) is the binary cross-entropy of sigmoid(y), computed from
            # logits: finite for any y, unlike log(sigmoid(y)).
            return ops.softplus(-y)
        z, margin = self.scores(kernel)
        return ops.square(ops.relu(margin - z))

    def get_config(self) -> dict[str, Any]:
        """Returns the config, with the key's commitment in place of the key.

        It never raises an error. Keras opens the target file before it asks for the
        config, so an error here would leave an empty file in place of a good one.
        """
        return self._settings() | {"regularizer": _serialized(self.regularizer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuilds the regularizer, with its key if that is alive in the process.

        See `keras_wm.keys`. Without its key the regularizer is inactive: it adds only
        the host's own penalty, and a warning says so.
        """
        regularizer = cls.__new__(cls)
        anchor = config.get("anchor", "")
        key = find_key(config["commitment"], config["slot"], anchor)
        regularizer._configure(key, **config)
        if regularizer.key is None and not is_without_keys():
            with_anchor = f", with the anchor {anchor[:8]}" if anchor else ""
            warnings.warn(
                "A WatermarkRegularizer was rebuilt without its key (commitment "
                f"{regularizer.commitment[:8]}{with_anchor}) and is inactive: training "
                "will not maintain the mark. To continue marking, load the key with "
                "keras_wm.WatermarkKey.load before the model, and keep it in a "
                "variable. If the model was loaded on purpose without its key, load "
                "it inside `with keras_wm.keys():`.",
                stacklevel=2,
            )
        return regularizer

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copy = type(self).__new__(type(self))
        copy._configure(self.key, **self._settings(), regularizer=self.regularizer)
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickle contains the config, so it does not carry the secret either.
        return type(self).from_config, (self.get_config(),)

    def __repr__(self) -> str:
        note = "" if self.key else ", inactive: key not loaded"
        return (
            f"<WatermarkRegularizer {self.commitment[:8]}: loss={self.loss!r}, "
            f"strength={self.strength:g}, slot={self.slot}{note}>"
        )

    def _configure(
        self,
        key: WatermarkKey | None,
        commitment: str,
        loss: Loss,
        strength: float | None,
        margin: float | None,
        regularizer: Any,
        slot: int,
        anchor: str = "",
    ) -> None:
        if loss not in get_args(Loss):
            raise ValueError(
                f"Expected loss='margin' or 'crossentropy'. Received: loss={loss!r}"
            )
        if margin is not None and loss != "margin":
            raise ValueError(
                "Expected margin=None, because only loss='margin' has a margin. "
                f"Received: margin={margin!r} with loss={loss!r}"
            )
        self.key, self.commitment, self.slot = key, commitment, slot
        self.anchor = anchor
        self.loss: Loss = loss
        self._given_strength = (
            None if strength is None else _positive("strength", strength)
        )
        self.strength = self._given_strength or DEFAULT_STRENGTH[loss]
        self.decoupled = strength is None and loss == "margin" and key is not None
        # Whether the mark has steps of its own at the moment.
        self.is_off = False
        self.margin = None if margin is None else _positive("margin", margin)
        self.regularizer = keras.regularizers.get(regularizer)
        if isinstance(self.regularizer, WatermarkRegularizer):
            raise ValueError(
                "Expected the host's own regularizer, such as 'l2', because a kernel "
                "carries one mark. Received: another WatermarkRegularizer"
            )
        # The weights of all kernels that were marked together: they share the cost.
        self.weights_in_all = 0
        # The model that `attach` was given, whose steps it recompiled.
        self.attached_to: weakref.ref[Any] | None = None
        self._projections: dict[tuple[int, ...], KernelProjection] = {}
        self._kernel_shapes: set[tuple[int, ...]] = set()
        self._lora_shapes: set[tuple[int, ...]] = set()
        self._warned_of_lora = False

    def _embedding_loss(self, kernel: Any) -> Any:
        """Returns the sum of the bit losses, for the margin loss as in training."""
        if self.loss == "crossentropy":
            return ops.sum(self.bit_losses(kernel))
        projection = self.projection(kernel.shape)
        weights = max(prod(projection.shape), self.weights_in_all)
        return margin_loss(kernel, projection, steps_between(weights))

    def _settings(self) -> dict[str, Any]:
        names = ("commitment", "loss", "margin", "slot", "anchor")
        settings = {name: getattr(self, name) for name in names}
        return settings | {"strength": self._given_strength}

    def _is_lora_factor(self, x: Any) -> bool:
        """Returns whether x is a factor that `enable_lora` added to a layer.

        Keras gives both factors the kernel's regularizer, until
        `keras_wm.embedding.lora` replaces it. On JAX, x is a variable when the layer is
        built but a bare array during training, so the factors' shapes are remembered.
        A shape that a kernel has as well counts as a kernel's.
        """
        shape, name = tuple(x.shape), getattr(x, "name", None)
        in_training = True
        if isinstance(name, str) and isinstance(x, keras.Variable):
            if not name.startswith(LORA_PREFIX):
                self._kernel_shapes.add(shape)
                return False
            self._lora_shapes.add(shape)
            # `fit` builds the model before `BitErrorRate` can replace the regularizer.
            in_training = keras.backend.backend() != "jax"
        elif shape not in self._lora_shapes - self._kernel_shapes:
            return False
        if in_training and not self._warned_of_lora:
            self._warned_of_lora = True
            warnings.warn(
                "LoRA freezes the kernel and trains two factors instead, which do not "
                "get the mark's penalty yet. Pass keras_wm.BitErrorRate() to fit: it "
                "moves the penalty to the merged kernel.",
                stacklevel=3,
            )
        return True


def value_of(x: Any) -> Any:
    """Returns the value of a variable; a tensor is returned as it is.

    Raises:
        RuntimeError: If JAX's trainer has taken the variable's value away. While `fit`
            trains, the values are arguments of the training step.
    """
    if not isinstance(x, keras.Variable):
        return x
    try:
        return x.value
    except TypeError as error:  # 'NoneType' object is not callable
        raise RuntimeError(
            f"The variable {x.path!r} has no value, because JAX's training step holds "
            "the values itself. In your own train_step or compute_loss, get the "
            "penalties from `self.stateless_call(..., return_losses=True)`, or add "
            "`keras_wm.penalty(self, trainable_variables)` to the loss."
        ) from error


def compute_dtype(x: Any) -> str:
    """Returns float64 for a float64 tensor, and float32 for any other.

    The sum over the bits would be inexact in half precision.
    """
    is_double = keras.backend.standardize_dtype(x.dtype) == "float64"
    return "float64" if is_double else "float32"


def _positive(name: str, value: float) -> float:
    """Returns a float; raises ValueError unless it is positive and finite."""
    if not isinstance(value, (int, float, np.number)) or not 0 < value < np.inf:
        raise ValueError(f"Expected a positive number. Received: {name}={value!r}")
    return float(value)


def _serialized(regularizer: Any) -> Any:
    """Returns the config of the host's regularizer; warns if it has none."""
    try:
        return keras.regularizers.serialize(regularizer) if regularizer else None
    except Exception as error:
        # This must not raise even if warnings are errors: see `get_config`.
        with contextlib.suppress(UserWarning):
            warnings.warn(
                f"The host's regularizer {regularizer!r} cannot be serialized "
                f"({error}) and will be missing from the saved model.",
                stacklevel=2,
            )
        return None
