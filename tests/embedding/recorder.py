"""A callback that records a training, and a reader of TensorBoard logs."""

import keras

from tests.models import kernel_of

VALUES = {"ber", "z_min", "z_mean", "embedding_loss"}


class Recorder(keras.callbacks.Callback):
    """Keeps the kernel and the logs of the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.kernels, self.logs = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.kernels.append(kernel_of(self.model))
        self.logs.append(dict(logs))


def events_in(folder):
    """Returns everything that TensorBoard reads from a folder."""
    from tensorboard.backend.event_processing import event_accumulator

    everything = dict.fromkeys(event_accumulator.DEFAULT_SIZE_GUIDANCE, 0)
    return event_accumulator.EventAccumulator(str(folder), everything).Reload()
