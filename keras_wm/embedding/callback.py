"""The callback that reports how well a mark is embedded while the model trains."""

from __future__ import annotations

import math
import os
import sys
import warnings
from itertools import count
from types import FrameType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_wm.embedding.marked_layers import (
    find_marked_layers,
    is_built,
    mark_merged_kernels,
    rebuild_steps,
    warn_of_shared_slots,
)
from keras_wm.scheme.detection import Detection, detect

Logs = dict[str, float]
# Detection and embedding loss of each marked layer, by name.
Measurements = dict[str, tuple[Detection, float]]


class BitErrorRate(keras.callbacks.Callback):
    """Callback that reports the marks of a model after each epoch.

    It finds all marked layers, also those of nested models, and adds the values below
    to the `logs` of the epoch. There, `History`, the progress bar, `TensorBoard`,
    `CSVLogger`, `EarlyStopping` and `ModelCheckpoint` find them, wherever this callback
    stands in the list of callbacks.

    - `ber`: bit error rate, the share of all bits that are read incorrectly. 0 for a
      complete mark, about 0.5 without a mark.
    - `z_min`, `z_mean`: smallest and mean score of the bits, in standard deviations of
      the score of an unmarked kernel. `z_min` is the margin that the mark has reached.
    - `embedding_loss`: mean embedding loss per bit, without the factor lambda. For the
      cross-entropy, this is E_R per bit of
      [Uchida et al. (2017)](https://doi.org/10.1145/3078971.3078974).
    - `ber/<layer>`, `z_min/<layer>` and so on, if several layers are marked. The values
      above then cover all of them together.

    All values are `nan` if the model has no mark, or no key is loaded.

    At the start of training it warns of every mark that is not trained: on a frozen or
    quantized layer, or in a model that was loaded or cloned without its key. On a layer
    with LoRA factors, it moves the penalty to the merged kernel, which is what the
    model computes and saves.

    To stop when the mark is complete, use `EarlyStopping(monitor="ber", mode="min")`.
    Keras cannot infer the direction from the name.

    Args:
        every: Number of epochs between two measurements, a positive integer. The values
            are repeated in between. The first epoch is always measured. Defaults to 1.
        log_dir: Folder of TensorBoard logs. The callback then writes a histogram of
            the scores of each marked layer, beside the N(0, 1) of an unmarked kernel, a
            picture of the recovered bits, and a text card with owner, commitment,
            slots and bits. Keep the log secret: it shows the message. The values above
            are written by Keras's `TensorBoard` callback, and by this one if that is
            not used, under the same names: `epoch_ber` and so on. Step n is the state
            after the epoch with index n; the first step is the state before training,
            -1 if training begins with epoch 0. Defaults to `None`, which writes
            nothing.

    Raises:
        ValueError: If `every` is not a positive integer.

    Example:

    ```python
    model.fit(
        x, y, epochs=20,
        callbacks=[keras_wm.BitErrorRate(), keras.callbacks.TensorBoard("logs")],
    )
    ```
    """

    def __init__(
        self, every: int = 1, log_dir: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"Expected a positive whole number of epochs. Received: every={every!r}"
            )
        self.every = every
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self._last_values: Logs = {}
        # A `MarkLog` during training, if there is a `log_dir`.
        self._writer: Any = None
        self._checked = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Warns of marks that are not trained, and opens the log file."""
        self._last_values = {}
        self._checked = False
        # A model without a fixed input shape gets its weights with the first batch.
        if is_built(self.model):
            self._check_marks()
        others = _move_to_front(self)
        if self.log_dir is not None:
            # Imported late: matplotlib and TensorBoard take half a second.
            from keras_wm.embedding.tensorboard import MarkLog

            drawn = any(
                isinstance(item, keras.callbacks.TensorBoard) for item in others
            )
            self._writer = MarkLog(self.log_dir, curves=not drawn)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Writes the untrained values, so that TensorBoard's curves start there."""
        if not self._last_values and self._writer is not None:
            self._write(_measure(self.model), step=epoch - 1)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the values to the epoch's logs."""
        if not self._checked:
            self._check_marks()
        if not self._last_values or epoch % self.every == 0:
            measurements = _measure(self.model)
            self._write(measurements, step=epoch)
            self._last_values = _log_values(measurements)
        if logs is not None:
            logs.update(self._last_values)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Closes the log file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _check_marks(self) -> None:
        self._checked = True
        moved = mark_merged_kernels(self.model)
        marked_layers = find_marked_layers(self.model)
        if not marked_layers:
            warnings.warn(
                "BitErrorRate found no mark in this model, so none is being "
                "embedded. Give a layer kernel_regularizer=WatermarkRegularizer(key), "
                "or call keras_wm.attach(model, layer, key). A model that was loaded, "
                "pickled or cloned has lost the regularizer that attach added.",
                stacklevel=3,
            )
        for marked in marked_layers:
            if marked.problem:
                warnings.warn(
                    f"The mark on layer {marked.name!r} is not being trained: "
                    f"{marked.problem}.",
                    stacklevel=3,
                )
        warn_of_shared_slots(self.model)
        # `attach` recompiled the steps of the model that it was given. If that was a
        # part of this model, the steps of this one still lack the penalty.
        attached_to = [marked.regularizer.attached_to for marked in marked_layers]
        if moved or any(
            model is not None and model() is not self.model for model in attached_to
        ):
            rebuild_steps(self.model)

    def _write(self, measurements: Measurements, step: int) -> None:
        if self._writer is not None:
            detections = {name: found for name, (found, _) in measurements.items()}
            marks = find_marked_layers(self.model)
            self._writer.write(marks, detections, _log_values(measurements), step)


def _measure(model: Any) -> Measurements:
    """Returns detection and embedding loss of each mark whose key is loaded."""
    measurements: Measurements = {}
    marked_layers = find_marked_layers(model)
    names = {marked.name for marked in marked_layers}
    for marked in marked_layers:
        kernel = marked.kernel
        if marked.regularizer.key is None or kernel is None:
            continue
        # Layers of several nested models that share a name are numbered.
        numbered = (f"{marked.name}_{number}" for number in count(2))
        unused = (name for name in numbered if name not in names | measurements.keys())
        name = next(unused) if marked.name in measurements else marked.name
        losses = marked.regularizer.bit_losses(kernel)
        measurements[name] = (
            detect(ops.convert_to_numpy(kernel), marked.regularizer.key),
            float(ops.convert_to_numpy(ops.mean(losses))),
        )
    return measurements


def _log_values(measurements: Measurements) -> Logs:
    """Returns the values of all marks together and, if there are several, of each."""
    values = _summary(list(measurements.values()))
    if len(measurements) > 1:
        for layer, measurement in measurements.items():
            for name, value in _summary([measurement]).items():
                values[f"{name}/{layer}"] = value
    return values


def _summary(measurements: list[tuple[Detection, float]]) -> Logs:
    """Returns the values of some marks together.

    They are Python floats, because a NumPy scalar in `History` cannot be written as
    JSON.
    """
    if not measurements:
        return dict.fromkeys(("ber", "z_min", "z_mean", "embedding_loss"), math.nan)
    bits = [detection.bits for detection, _ in measurements]
    z = np.concatenate([detection.z for detection, _ in measurements])
    losses = [loss for _, loss in measurements]
    return {
        "ber": float(np.mean(z <= 0)),
        "z_min": float(z.min()),
        "z_mean": float(z.mean()),
        "embedding_loss": float(np.average(losses, weights=bits)),
    }


def _move_to_front(callback: BitErrorRate) -> list[Any]:
    """Moves a callback to the front of the list that `fit` is calling.

    Returns the other callbacks of that list.

    Keras passes one `logs` dictionary along its list of callbacks. Callbacks that stand
    earlier would miss our values: `TensorBoard` and `CSVLogger` would silently leave
    them out, and `EarlyStopping` and `ModelCheckpoint` could not monitor them.

    Keras has no documented way to reorder the list. It gives a callback its model and
    the parameters of `fit`, and neither leads to the list. A metric of the model is not
    an alternative, because it would have to be part of the compiled training step. The
    list is the object that calls `on_train_begin`, so it is looked up on the
    interpreter's stack. If Keras ever changes this, no frame matches, and the callback
    still works for all callbacks that stand behind it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            rest = [item for item in caller.callbacks if item is not callback]
            # A callback that is nested in another one is not in the list itself.
            if len(rest) < len(caller.callbacks):
                caller.callbacks = [callback, *rest]
            return rest
        frame = frame.f_back
    return []
