"""The callback that reports how well a mark is embedded while the model trains."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any

import keras

from keras_wm.embedding.attach_after import AttachAfter
from keras_wm.embedding.mark_steps import MarkSteps, deadline_of
from keras_wm.embedding.marked_layers import (
    find_marked_layers,
    is_built,
    mark_merged_kernels,
    rebuild_steps,
)
from keras_wm.embedding.measuring import (
    Figures,
    Measurement,
    averaged_scope,
    figures,
    measurements,
)
from keras_wm.embedding.training_checks import (
    DriftCheck,
    warn_of_checkpoints,
    warn_of_untrained_marks,
)

Logs = dict[str, float]


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

    It also embeds the marks that were given no strength, by steps of its own between
    those of the optimizer: within half of the planned steps, at the latest after 1,000.
    See `keras_wm.embedding.loss.decoupled_step`. A mark in a layer with LoRA factors
    moves the factors.

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
        self._end = _End(self)
        # A `MarkLog` during training, if there is a `log_dir`.
        self._writer: Any = None
        self._reset()

    def _reset(self) -> None:
        self._logged: Figures = {}
        self._drift: DriftCheck | None = None
        self._mark_steps: MarkSteps | None = None
        self._first_epoch: int | None = None
        self._measured_epoch: int | None = None
        self._epoch = 0
        # Steps before this epoch, in it, and before there was a mark.
        self._steps_before = self._steps_in_epoch = self._steps_unmarked = 0
        # True if another callback attaches a mark during the training.
        self._awaits_mark = False
        # The marks whose training was checked, by the ids of their regularizers.
        self._begun: set[int] = set()

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Warns of marks that are not trained, and opens the log file."""
        self._reset()
        others = _take_places(self, self._end)
        self._awaits_mark = any(isinstance(item, AttachAfter) for item in others)
        # A model without a fixed input shape gets its weights with the first batch.
        if is_built(self.model):
            self._begin()
        if self.log_dir is not None:
            # Imported late: matplotlib and TensorBoard take half a second.
            from keras_wm.embedding.tensorboard import MarkLog

            drawn = any(
                isinstance(item, keras.callbacks.TensorBoard) for item in others
            )
            self._writer = MarkLog(self.log_dir, curves=not drawn)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Counts steps. Writes the untrained figures, where the curves start."""
        if self._first_epoch is None:
            self._first_epoch = epoch
            if self._writer is not None:
                self._write(measurements(self.model), step=epoch - 1)
        self._epoch = epoch
        self._steps_before += self._steps_in_epoch
        self._steps_in_epoch = 0

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the kernels towards their marks, in some of the steps.

        It is the begin of a step and not its end, because Keras waits for the results
        of each step if a callback wants to be called at its end.
        """
        self._steps_in_epoch = batch
        if batch and self._drift is None and is_built(self.model):
            self._begin()
        if not batch and self._drift is not None and self._marks() != self._begun:
            # Another callback has attached a mark at the begin of this epoch.
            self._steps_unmarked = self._steps_before
            self._begin()
        now = self._steps_done(), self._planned_steps()
        if self._mark_steps is not None and self._mark_steps.is_due(*now):
            # On JAX, the variables have values only after `model` was read.
            assert self.model  # noqa: S101
            self._mark_steps.move(*now)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the figures to the epoch's logs."""
        if self._drift is None:
            self._begin()
        self._steps_in_epoch += 1
        is_last = epoch + 1 == self._parameter("epochs")
        if not self._logged or epoch % self.every == 0 or is_last:
            self._log(epoch)
        if logs is not None:
            logs.update(self._logged)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Measures the last epoch, if that was not done, and closes the log file."""
        if self._logged and self._measured_epoch != self._epoch:
            # The training was stopped in an epoch that would not have been measured.
            self._log(self._epoch)
            history = getattr(self.model, "history", None)
            for name, value in self._logged.items():
                if history is not None and history.history.get(name):
                    history.history[name][-1] = value
            if logs is not None:
                logs.update(self._logged)
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if not self._end.is_in_list:
            self._end.on_train_end()

    def finish(self) -> None:
        """Leaves the model as it was found, and warns of incomplete marks."""
        if self._mark_steps is not None:
            self._mark_steps.finish()
        if self._drift is None:
            return
        measured = measurements(self.model)
        self._drift.warn_of_incomplete_marks(measured)
        in_checkpoints = self._logged.get("unaveraged_ber", 0.0)
        if in_checkpoints > 0 and not figures(measured)["ber"] > 0:
            warn_of_checkpoints(in_checkpoints)

    def _begin(self) -> None:
        """Checks the marks, and starts to embed those with steps of their own."""
        self._begun = self._marks()
        if self._awaits_mark and not self._begun:
            self._drift = DriftCheck(self.model, {})
            return
        moved = mark_merged_kernels(self.model)
        marked_layers = warn_of_untrained_marks(self.model)
        self._drift = DriftCheck(self.model, measurements(self.model))
        # `attach` recompiled the steps of the model that it was given. If that was a
        # part of this model, the steps of this one still lack the penalty.
        attached_to = [marked.regularizer.attached_to for marked in marked_layers]
        if moved or any(
            model is not None and model() is not self.model for model in attached_to
        ):
            rebuild_steps(self.model)
        self._mark_steps = MarkSteps(self.model)

    def _marks(self) -> set[int]:
        return {id(marked.regularizer) for marked in find_marked_layers(self.model)}

    def _log(self, epoch: int) -> None:
        """Measures the marks, and writes and keeps the figures."""
        assert self._drift is not None  # noqa: S101 (for the type checker)
        self._measured_epoch = epoch
        measured = measurements(self.model)
        deadline = deadline_of(self._planned_steps())
        self._drift.warn_of_still_marks(measured, self._steps_done(), deadline)
        scope = averaged_scope(self.model)
        self._logged = {}
        if scope is not None:
            # Until the training ends, the model has other weights, and so do its
            # checkpoints.
            unaveraged = figures(measured)
            with scope:
                measured = measurements(self.model)
            self._logged = {
                f"unaveraged_{name}": unaveraged[name] for name in ("ber", "z_min")
            }
        self._logged |= figures(measured)
        self._write(measured, step=epoch)

    def _steps_done(self) -> int:
        """Returns the number of steps with the mark."""
        return self._steps_before + self._steps_in_epoch - self._steps_unmarked

    def _planned_steps(self) -> int | None:
        """Returns the number of steps with the mark in all, if it is known."""
        epochs, in_epoch = self._parameter("epochs"), self._parameter("steps")
        done = self._epoch - (self._first_epoch or 0)
        if in_epoch is None and done:
            in_epoch = self._steps_before // done
        if epochs is None or in_epoch is None:
            return None
        planned = int(in_epoch * (epochs - (self._first_epoch or 0)))
        return planned - self._steps_unmarked

    def _parameter(self, name: str) -> int | None:
        """Returns a parameter of `fit`; a callback inside another one may have none."""
        return (self.params or {}).get(name)

    def _write(self, measured: dict[str, Measurement], step: int) -> None:
        if self._writer is not None:
            detections = {name: item.detection for name, item in measured.items()}
            marks = find_marked_layers(self.model)
            self._writer.write(marks, detections, figures(measured), step)


class _End(keras.callbacks.Callback):
    """Calls a `BitErrorRate` when all other callbacks have finished.

    Some change the weights in `on_train_end`, such as `EarlyStopping`.
    """

    def __init__(self, callback: BitErrorRate) -> None:
        super().__init__()
        self._callback = callback
        self.is_in_list = False

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Finishes the training of the marks."""
        self.is_in_list = False
        self._callback.finish()


def _take_places(callback: BitErrorRate, end: _End) -> list[Any]:
    """Moves a callback to the front of the list that `fit` calls, and adds its end.

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
                rest = [item for item in rest if item is not end]
                caller.callbacks = [callback, *rest, end]
                end.is_in_list = True
            return rest
        frame = frame.f_back
    return []
