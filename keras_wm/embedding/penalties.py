"""The marks' penalty for training loops that do not use Keras's own loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_wm.embedding.marked_layers import (
    check_is_model,
    find_marked_layers,
    mark_merged_kernels,
    trained_scope,
)

if TYPE_CHECKING:
    from keras_wm.files.keras_model import KerasModel


def penalty(model: KerasModel, trainable_variables: Sequence[Any] | None = None) -> Any:
    """Returns the penalty of all marks of a model, to be added to a training loss.

    `fit` adds it by itself. Your own `train_step`, `compute_loss` or training loop
    needs this line unless its loss contains `sum(model.losses)`, which the penalty is a
    part of, or `keras_wm.BitErrorRate` embeds the marks. The penalty of a mark is 0
    while it does.

    Args:
        model: A Keras model with its marks' regularizers. Within its methods, `self`.
        trainable_variables: The values of `model.trainable_variables`, in this order,
            that the gradient is computed for. Needed in JAX's stateless loops, where
            the model itself holds no values. Defaults to `None`: the model's own.

    Returns:
        A scalar tensor, differentiable with respect to the kernels. The penalties of
        the host network's own regularizers are not a part of it. A mark that is not
        trained, because its layer is frozen or its key not loaded, adds 0.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If the number of values differs from that of the variables.

    Example:

    ```python
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = my_loss(y, self(x, training=True))
            loss += keras_wm.penalty(self)
        ...
    ```
    """
    check_is_model(model)
    dtype = keras.config.floatx()
    total = ops.zeros((), dtype)
    mark_merged_kernels(model)
    with trained_scope(model, trainable_variables):
        for marked in find_marked_layers(model):
            if not marked.problem:
                mark = marked.regularizer.mark_penalty(marked.kernel)
                total = total + ops.cast(mark, dtype)
    return total
