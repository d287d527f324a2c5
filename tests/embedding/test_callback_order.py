"""BitErrorRate in any place of the list: every other callback sees its values."""

import contextlib
import csv
import io
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate
from tests.embedding.conftest import restored
from tests.embedding.recorder import VALUES, Recorder, events_in
from tests.models import data, fit

pytestmark = pytest.mark.backends


@dataclass(frozen=True)
class Run:
    """A training with the callbacks of Keras that read the logs."""

    history: dict[str, list[float]]
    recorder: Recorder
    folder: Path
    printed: str


@pytest.fixture(scope="module", params=["first", "last"])
def run(request, traced_model, tmp_path_factory):
    """A training with BitErrorRate in front of the other callbacks or behind them."""
    folder, recorder = tmp_path_factory.mktemp(request.param), Recorder()
    callbacks = keras.callbacks
    others = [
        recorder,
        callbacks.CSVLogger(folder / "log.csv"),
        callbacks.TensorBoard(folder / "logs", write_graph=False),
        callbacks.ModelCheckpoint(
            folder / "{epoch:02d}-{ber:.3f}.weights.h5",
            monitor="ber",
            mode="min",
            save_best_only=True,
            save_weights_only=True,
        ),
        callbacks.ReduceLROnPlateau(monitor="z_min", mode="max"),
        callbacks.EarlyStopping(monitor="ber", mode="min", patience=3),
    ]
    ours = [BitErrorRate()]
    in_order = ours + others if request.param == "first" else others + ours
    with contextlib.redirect_stdout(io.StringIO()) as output:
        history = fit(restored(traced_model), 20, in_order, verbose=2)
    return Run(history, recorder, folder, output.getvalue())


def test_history_gets_the_values(run):
    assert set(run.history) >= VALUES
    assert len({len(run.history[name]) for name in VALUES}) == 1


def test_any_other_callback_sees_the_values(run):
    assert all(set(logs) >= VALUES for logs in run.recorder.logs)


def test_csv_logger_gets_a_column_from_epoch_0_on(run):
    rows = list(csv.DictReader((run.folder / "log.csv").read_text().splitlines()))
    assert [float(row["ber"]) for row in rows] == run.history["ber"]


def test_tensorboard_gets_a_scalar(run):
    from tensorboard.util.tensor_util import make_ndarray

    events = events_in(run.folder / "logs" / "train").Tensors("epoch_ber")
    assert [event.step for event in events] == list(range(len(run.history["ber"])))
    values = [make_ndarray(event.tensor_proto) for event in events]
    np.testing.assert_allclose(values, run.history["ber"], rtol=1e-6)


def test_early_stopping_stops_at_a_complete_mark(run):
    assert 4 < len(run.history["ber"]) < 20
    assert run.history["ber"][0] > 0
    assert run.history["ber"][-4:] == [0.0] * 4


def test_model_checkpoint_formats_its_path_and_monitors(run):
    written = sorted(path.name for path in run.folder.glob("*.weights.h5"))
    assert written[0] == f"01-{run.history['ber'][0]:.3f}.weights.h5"
    assert written[-1].endswith("-0.000.weights.h5")


def test_reduce_lr_on_plateau_reads_the_values(run):
    # Without them it would have warned, and warnings are errors.
    assert "learning_rate" in run.history


def test_the_progress_bar_shows_the_values(run):
    assert "ber: 0." in run.printed


def test_a_callback_list_made_by_the_user_is_reordered_too(model):
    recorder = Recorder()
    callbacks = keras.callbacks.CallbackList(
        [recorder, BitErrorRate()], add_history=True, model=model
    )
    x, y = data()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    assert all(set(logs) >= VALUES for logs in recorder.logs)


def test_a_derived_callback_is_reordered_too(model):
    class Derived(BitErrorRate):
        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)

    recorder = Recorder()
    fit(model, 1, [recorder, Derived()])
    assert set(recorder.logs[0]) >= VALUES


def test_the_other_callbacks_are_all_called_once_in_their_order(model):
    calls = []

    class Counted(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_train_begin(self, logs=None):
            calls.append(("begin", self.name))

        def on_epoch_end(self, epoch, logs=None):
            calls.append((epoch, self.name))

        def on_train_end(self, logs=None):
            calls.append(("end", self.name))

    fit(model, 2, [Counted("a"), BitErrorRate(), Counted("b")])
    moments = ["begin", 0, 1, "end"]
    assert calls == [(moment, name) for moment in moments for name in "ab"]


def test_a_callback_nested_in_another_one_is_called_once_per_epoch(model):
    calls = []

    class Counted(BitErrorRate):
        def on_epoch_end(self, epoch, logs=None):
            calls.append(epoch)
            super().on_epoch_end(epoch, logs)

    class Outer(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.inner = Counted()
            self.inner.set_model(self.model)
            self.inner.on_train_begin(logs)

        def on_epoch_end(self, epoch, logs=None):
            self.inner.on_epoch_end(epoch, logs)

    history = fit(model, 2, [Outer()])
    assert calls == [0, 1]
    assert len(history["ber"]) == 2
