"""The callback that shows how a mark grows while the model trains."""

from __future__ import annotations

import math
import os
import sys
import warnings
from itertools import count
from types import FrameType
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_wm.embedding.marked_layers import find_marked_layers, is_built, rebuild_steps
from keras_wm.scheme.detection import Detection, detect

if TYPE_CHECKING:
    from keras_wm.embedding.tensorboard import SummaryWriter

Logs = dict[str, float]
Measured = dict[str, tuple[Detection, float]]


class BitErrorRate(keras.callbacks.Callback):
    """Reports, each epoch, how well a model carries the marks it is trained with.

    It finds the marked layers itself, those of nested models too, and adds to
    the epoch's `logs`, where `History`, the progress bar, `TensorBoard`,
    `CSVLogger`, `EarlyStopping` and `ModelCheckpoint` find them:

    - `ber`: the share of all bits that are not read right, 0 when the mark is
      complete;
    - `z_min`, `z_mean`: the smallest and the mean score, in standard deviations
      of what an unmarked kernel gives: the margin of the mark;
    - `embedding_loss`: the penalty per bit, without the factor lambda (E_R of
      the papers);
    - `ber/<layer>` and so on where several layers are marked.

    When training starts it checks that a penalty acts on every kernel it
    reports, and warns where none does: a mark that is not trained cannot be
    seen otherwise.

    Args:
        every: How many epochs lie between two measurements; the last value is
            repeated in between. The first epoch is always measured. Defaults
            to 1.
        log_dir: Where to write, besides, for TensorBoard: the bit error rate from
            before the first epoch on, a histogram of the scores and a picture of
            the recovered bits. Defaults to `None`: nowhere.

    Raises:
        ValueError: If `every` is not a positive whole number.

    Example:

    ```python
    model.fit(
        x, y, epochs=20,
        callbacks=[keras_wm.BitErrorRate(), keras.callbacks.TensorBoard("logs")],
    )
    ```

    To stop at a complete mark, use `EarlyStopping(monitor="ber", mode="min")`:
    Keras cannot guess the direction.
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
        self._last: Logs = {}
        self._writer: SummaryWriter | None = None
        self._checked = False

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Looks for marks that are not being trained, and says so."""
        self._last = {}
        # A model without a fixed input gets its weights with the first batch.
        self._checked = is_built(self.model)
        if self._checked:
            self._check()
        if self.log_dir is not None:
            from keras_wm.embedding.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self.log_dir)
        _put_first(self)

    def _check(self) -> None:
        marks = find_marked_layers(self.model)
        if not marks:
            warnings.warn(
                "BitErrorRate found no mark in this model, so none is being "
                "embedded. Give a layer kernel_regularizer=WatermarkRegularizer(key), "
                "or call keras_wm.attach(model, layer, key): a model that was loaded, "
                "pickled or cloned has lost what attach did.",
                stacklevel=3,
            )
        for mark in marks:
            if mark.problem:
                warnings.warn(
                    f"The mark on layer {mark.name!r} is not being trained: "
                    f"{mark.problem}.",
                    stacklevel=3,
                )
        # Only the model that attach was given has had its step compiled anew.
        homes = [mark.regularizer.attached_to for mark in marks]
        if any(home is not None and home() is not self.model for home in homes):
            rebuild_steps(self.model)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Writes what there is before training, for the fall to start from."""
        if not self._last and self._writer is not None:
            self._write(_measured(self.model), step=epoch)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the figures to the epoch's logs."""
        if not self._checked:
            self._checked = True
            self._check()
        if not self._last or epoch % self.every == 0:
            measured = _measured(self.model)
            self._write(measured, step=epoch + 1)
            self._last = _all_figures(measured)
        if logs is not None:
            logs.update(self._last)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Ends the log file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, measured: Measured, step: int) -> None:
        if self._writer is not None:
            for name, (detection, _) in measured.items():
                self._writer.add_detection(name, detection, step)


def _measured(model: Any) -> Measured:
    """The detection and the embedding loss of each mark whose key is at hand."""
    measured: Measured = {}
    marks = find_marked_layers(model)
    names = {mark.name for mark in marks}
    for mark in marks:
        kernel = mark.kernel
        if mark.regularizer.key is None or kernel is None:
            continue
        # Layers of one name in several nested models are numbered.
        numbered = (f"{mark.name}_{number}" for number in count(2))
        free = (name for name in numbered if name not in names | measured.keys())
        losses = mark.regularizer.bit_losses(kernel)
        measured[next(free) if mark.name in measured else mark.name] = (
            detect(ops.convert_to_numpy(kernel), mark.regularizer.key),
            float(ops.convert_to_numpy(ops.mean(losses))),
        )
    return measured


def _all_figures(measured: Measured) -> Logs:
    """The figures of all marks together and, where there are several, of each."""
    figures = _figures(list(measured.values()))
    if len(measured) > 1:
        for name, one in measured.items():
            for figure, value in _figures([one]).items():
                figures[f"{figure}/{name}"] = value
    return figures


def _figures(measured: list[tuple[Detection, float]]) -> Logs:
    """Plain floats: a NumPy scalar in `History` cannot be written as JSON."""
    if not measured:
        return dict.fromkeys(("ber", "z_min", "z_mean", "embedding_loss"), math.nan)
    bits = [detection.bits for detection, _ in measured]
    z = np.concatenate([detection.z for detection, _ in measured])
    return {
        "ber": float(np.mean(z <= 0)),
        "z_min": float(z.min()),
        "z_mean": float(z.mean()),
        "embedding_loss": float(
            np.average([loss for _, loss in measured], weights=bits)
        ),
    }


def _put_first(callback: BitErrorRate) -> None:
    """Moves a callback in front of those that read its figures from the logs.

    Keras hands one `logs` object down its list of callbacks, so a consumer that
    stands earlier misses what is added later, `TensorBoard` and `CSVLogger`
    without a word. No callback is told of the list; it is the object that is
    calling.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            others = [other for other in caller.callbacks if other is not callback]
            # One that another callback drives is not in the list, and stays out.
            if len(others) < len(caller.callbacks):
                caller.callbacks = [callback, *others]
            return
        frame = frame.f_back
