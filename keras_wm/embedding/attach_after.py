"""A callback that attaches a mark when a network has been trained for some epochs."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from keras_wm.embedding.attachment import attach
from keras_wm.embedding.marked_layers import find_marked_layers
from keras_wm.scheme.key import WatermarkKey, check_key

Logs = dict[str, float]


class AttachAfter(keras.callbacks.Callback):
    """Callback that attaches a mark to a layer after a number of epochs.

    Until then the network is trained without the mark. It is for marks with `inputs`:
    what a layer uses of its inputs can only be measured when it has learned something.
    With `keras_wm.BitErrorRate` among the callbacks, the mark is then embedded within
    half of the steps that are left.

    If training resumes after these epochs, the mark is attached before the first step.
    If the key is that of the first training, or was loaded from its file, its anchor is
    used again.

    Args:
        epochs: Number of epochs before the mark is attached, a positive integer. A
            third of the training is enough.
        layer: The layer to mark, or its name. `None` marks the whole network.
        key: The `keras_wm.WatermarkKey` to embed.
        inputs: A few hundred examples of the model's inputs, as for `keras_wm.attach`.
            Defaults to `None`.
        **options: Further arguments of `keras_wm.attach`, such as `slot`.

    Raises:
        TypeError: If `key` is not a `WatermarkKey`.
        ValueError: If `epochs` is not a positive integer. During training, as
            `keras_wm.attach`.

    Example:

    ```python
    key = keras_wm.WatermarkKey.generate("Example Ltd")
    key.save("owner.key")
    mark = keras_wm.AttachAfter(10, "block4_conv2", key, x[:512])
    model.fit(x, y, epochs=30, callbacks=[mark, keras_wm.BitErrorRate()])
    ```
    """

    def __init__(
        self,
        epochs: int,
        layer: Any,
        key: WatermarkKey,
        inputs: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_key(key)
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(
                "Expected a positive whole number of epochs before the mark is "
                f"attached. Received: epochs={epochs!r}. To mark a network from the "
                "first step, call keras_wm.attach before fit."
            )
        self.epochs, self.layer, self.key = epochs, layer, key
        self._options = {"inputs": inputs, **options}

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Attaches the mark, if the network has been trained long enough."""
        if epoch >= self.epochs and not self._is_attached():
            attach(self.model, self.layer, self.key, **self._options)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Warns if the training was too short for the mark."""
        if not self._is_attached():
            warnings.warn(
                f"Training has ended before the mark was attached to {self._where()}: "
                f"this happens after {self.epochs} epochs. The model has no mark. "
                "Train longer, or use fewer epochs in AttachAfter.",
                stacklevel=2,
            )

    def _where(self) -> str:
        if self.layer is None:
            return "the network"
        return f"layer {getattr(self.layer, 'name', self.layer)!r}"

    def _is_attached(self) -> bool:
        slot = self._options.get("slot")
        mark = self.key.commitment, self.key.slot if slot is None else slot
        return any(
            (marked.regularizer.commitment, marked.regularizer.slot) == mark
            for marked in find_marked_layers(self.model)
        )
