"""BitErrorRate: what it reports, to whom, and what it warns of."""

import csv
import json
import math

import keras
import numpy as np
import pytest

from keras_wm import BitErrorRate, WatermarkKey, attach, keys
from tests.conftest import fixed_key
from tests.models import (
    FEATURES,
    LAYER,
    UNITS,
    compile_model,
    data,
    dense_model,
    expected_ber,
    expected_crossentropy,
    expected_margin_loss,
    expected_scores,
    find_layer,
    fit,
    kernel_of,
    mark,
    nested_model,
    subclassed_model,
)

pytestmark = pytest.mark.backends

FIGURES = {"ber", "z_min", "z_mean", "embedding_loss"}
ROOM = 0.17 * np.sqrt(FEATURES * UNITS / 32)
PLACES = pytest.mark.parametrize("first", [True, False], ids=["first", "last"])


def in_place(first, others):
    """The callbacks with ours in front of the others or behind them."""
    return [BitErrorRate(), *others] if first else [*others, BitErrorRate()]


class Recorder(keras.callbacks.Callback):
    """Keeps the kernel and the logs that it sees at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.kernels, self.logs = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.kernels.append(kernel_of(self.model))
        self.logs.append(dict(logs))


@pytest.fixture
def model(key):
    return dense_model(mark(key))


# Who sees the figures.


@PLACES
def test_history_gets_the_figures(model, first):
    history = fit(model, 2, in_place(first, [Recorder()]))
    assert set(history) >= FIGURES
    assert all(len(history[figure]) == 2 for figure in FIGURES)


@PLACES
def test_any_other_callback_sees_the_figures(model, first):
    recorder = Recorder()
    fit(model, 2, in_place(first, [recorder]))
    assert all(set(logs) >= FIGURES for logs in recorder.logs)


@PLACES
def test_csv_logger_gets_a_column_from_epoch_0_on(model, first, tmp_path):
    path = tmp_path / "log.csv"
    history = fit(model, 3, in_place(first, [keras.callbacks.CSVLogger(path)]))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["ber"]) for row in rows] == history["ber"]


def events_in(folder):
    """All that TensorBoard reads from a folder."""
    from tensorboard.backend.event_processing import event_accumulator

    everything = dict.fromkeys(event_accumulator.DEFAULT_SIZE_GUIDANCE, 0)
    return event_accumulator.EventAccumulator(str(folder), everything).Reload()


@PLACES
def test_tensorboard_gets_a_scalar(model, first, tmp_path):
    from tensorboard.util.tensor_util import make_ndarray

    history = fit(model, 3, in_place(first, [keras.callbacks.TensorBoard(tmp_path)]))
    events = events_in(tmp_path / "train").Tensors("epoch_ber")
    assert [event.step for event in events] == [0, 1, 2]
    values = [make_ndarray(event.tensor_proto) for event in events]
    np.testing.assert_allclose(values, history["ber"], rtol=1e-6)


@PLACES
def test_early_stopping_stops_at_a_complete_mark(key, first):
    stop = keras.callbacks.EarlyStopping(monitor="ber", mode="min", patience=3)
    model = dense_model(mark(key, strength=0.1))
    history = fit(model, 40, in_place(first, [stop]))
    assert len(history["ber"]) < 40
    assert history["ber"][-4:] == [0.0] * 4


@PLACES
def test_model_checkpoint_formats_its_path_and_monitors(model, first, tmp_path):
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch:02d}-{ber:.3f}.weights.h5",
        monitor="ber",
        mode="min",
        save_best_only=True,
        save_weights_only=True,
    )
    history = fit(model, 3, in_place(first, [checkpoint]))
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written[0] == f"01-{history['ber'][0]:.3f}.weights.h5"


def test_reduce_lr_on_plateau_reads_the_figures(model):
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="z_min", mode="max")
    history = fit(model, 2, [plateau, BitErrorRate()])
    assert set(history) >= FIGURES


def test_the_progress_bar_shows_the_figures(model, capsys):
    fit(model, 1, [BitErrorRate()], verbose=2)
    assert "ber: 0." in capsys.readouterr().out


def test_a_callback_list_of_the_users_own_is_reordered_too(model):
    recorder = Recorder()
    callbacks = keras.callbacks.CallbackList(
        [recorder, BitErrorRate()], add_history=True, model=model
    )
    x, y = data()
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
    assert all(set(logs) >= FIGURES for logs in recorder.logs)


def test_a_callback_derived_from_ours_is_reordered_too(model):
    class Derived(BitErrorRate):
        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)

    recorder = Recorder()
    fit(model, 1, [recorder, Derived()])
    assert set(recorder.logs[0]) >= FIGURES


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


def test_a_callback_that_another_one_drives_is_called_once_an_epoch(model):
    calls = []

    class Counted(BitErrorRate):
        def on_epoch_end(self, epoch, logs=None):
            calls.append(epoch)
            super().on_epoch_end(epoch, logs)

    class Driver(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.driven = Counted()
            self.driven.set_model(self.model)
            self.driven.on_train_begin(logs)

        def on_epoch_end(self, epoch, logs=None):
            self.driven.on_epoch_end(epoch, logs)

    history = fit(model, 2, [Driver()])
    assert calls == [0, 1]
    assert len(history["ber"]) == 2


# What the figures are.


def test_the_figures_are_those_of_the_equations(model, key):
    recorder = Recorder()
    history = fit(model, 3, [recorder, BitErrorRate()])
    for epoch, kernel in enumerate(recorder.kernels):
        scores = expected_scores(kernel, key)
        assert history["ber"][epoch] == pytest.approx(expected_ber(kernel, key))
        assert history["z_min"][epoch] == pytest.approx(scores.min(), abs=1e-6)
        assert history["z_mean"][epoch] == pytest.approx(scores.mean(), abs=1e-6)
        per_bit = expected_margin_loss(kernel, key, ROOM) / 32
        assert history["embedding_loss"][epoch] == pytest.approx(per_bit, rel=1e-4)


def test_the_embedding_loss_of_crossentropy_is_the_papers_per_bit(key):
    model = dense_model(mark(key, loss="crossentropy"))
    history = fit(model, 1, [BitErrorRate()])
    per_bit = expected_crossentropy(kernel_of(model), key) / 32
    assert history["embedding_loss"] == [pytest.approx(per_bit, rel=1e-4)]


def test_the_figures_of_an_explicit_key_are_those_of_the_equations():
    rng = np.random.default_rng(0)
    key = WatermarkKey.from_arrays(rng.normal(size=(8, 32)), rng.integers(0, 2, 8))
    model = dense_model(mark(key))
    history = fit(model, 1, [BitErrorRate()])
    kernel = kernel_of(model)
    assert history["ber"] == [pytest.approx(expected_ber(kernel, key))]
    assert history["z_min"] == [pytest.approx(expected_scores(kernel, key).min())]


def test_every_figure_is_a_python_float(model):
    history = fit(model, 2, [BitErrorRate()])
    assert json.loads(json.dumps(history)) == history
    assert {type(value) for name in FIGURES for value in history[name]} == {float}


def test_every_third_epoch_is_measured_and_repeated_in_between(model, key):
    recorder = Recorder()
    history = fit(model, 5, [BitErrorRate(every=3), recorder])
    z = [expected_scores(kernel, key).mean() for kernel in recorder.kernels]
    np.testing.assert_allclose(history["z_mean"], [z[0]] * 3 + [z[3]] * 2, rtol=1e-6)


@pytest.mark.parametrize("initial_epoch", [1, 3])
def test_the_first_epoch_is_measured_wherever_it_starts(model, key, initial_epoch):
    recorder = Recorder()
    callbacks = [BitErrorRate(every=3), recorder]
    history = fit(model, initial_epoch + 2, callbacks, initial_epoch=initial_epoch)
    assert history["z_mean"][0] == pytest.approx(
        expected_scores(recorder.kernels[0], key).mean()
    )


def test_a_second_fit_does_not_start_with_the_figures_of_the_first(model, key):
    callback = BitErrorRate(every=5)
    first = fit(model, 2, [callback])
    second = fit(model, 1, [callback])
    assert second["z_mean"][0] > first["z_mean"][0]
    assert second["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]


@pytest.mark.parametrize("every", [0, -1, 1.5, "2", None])
def test_every_must_be_a_positive_whole_number(every):
    with pytest.raises(ValueError, match="every="):
        BitErrorRate(every=every)


# Which marks are found.


def two_marks(names, regularizers):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((FEATURES,))
    layers = [
        keras.layers.Dense(UNITS, kernel_regularizer=regularizer, name=name)
        for name, regularizer in zip(names, regularizers, strict=True)
    ]
    parts = [layer(inputs) for layer in layers]
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Add()(parts)))
    return compile_model(model)


def test_several_layers_are_reported_one_by_one_and_together(key):
    other = fixed_key(8)
    model = two_marks("ab", [mark(key), mark(other)])
    history = fit(model, 2, [BitErrorRate()])
    kernels = kernel_of(model, "a"), kernel_of(model, "b")
    rates = [
        expected_ber(kernel, k) for kernel, k in zip(kernels, (key, other), strict=True)
    ]
    assert history["ber/a"][-1] == pytest.approx(rates[0])
    assert history["ber/b"][-1] == pytest.approx(rates[1])
    # The share of all bits.
    together = (32 * rates[0] + 8 * rates[1]) / 40
    assert history["ber"][-1] == pytest.approx(together)
    assert set(history) >= {f"{figure}/{name}" for figure in FIGURES for name in "ab"}


def test_one_regularizer_on_two_layers_is_two_marks(key):
    regularizer = mark(key)
    model = two_marks("ab", [regularizer, regularizer])
    history = fit(model, 1, [BitErrorRate()])
    for name in "ab":
        expected = expected_ber(kernel_of(model, name), key)
        assert history[f"ber/{name}"] == [pytest.approx(expected)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_layers_of_one_name_in_nested_models_are_all_reported(key, place):
    # "d_2" is a name of its own and what a second "d" might be called.
    inputs = keras.Input((FEATURES,))

    def dense(name):
        return keras.layers.Dense(UNITS, kernel_regularizer=mark(key), name=name)

    parts = [
        keras.Sequential([keras.Input((FEATURES,)), dense("d")], name=name)(inputs)
        for name in "ab"
    ]
    parts.insert(place, dense("d_2")(inputs))
    model = compile_model(
        keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Add()(parts)))
    )
    history = fit(model, 1, [BitErrorRate()])
    assert len([name for name in history if name.startswith("ber/")]) == 3


@pytest.mark.parametrize("make", [nested_model, subclassed_model])
def test_a_mark_deep_in_a_model_is_found(key, make):
    model = make(mark(key))
    history = fit(model, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]
    assert set(history) == {"loss", *FIGURES}


def test_a_subclassed_model_that_is_built_by_fit_is_reported_without_a_warning(key):
    model = subclassed_model(mark(key), built=False)
    history = fit(model, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]


def test_a_sequential_model_that_is_built_by_fit_is_reported_without_a_warning(key):
    dense = keras.layers.Dense(UNITS, kernel_regularizer=mark(key), name=LAYER)
    model = compile_model(keras.Sequential([dense, keras.layers.Dense(4)]))
    history = fit(model, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]


def test_a_model_that_keeps_the_regularizer_itself_is_not_warned_of(key):
    model = subclassed_model(mark(key))
    model.penalty = find_layer(model).kernel_regularizer
    history = fit(model, 1, [BitErrorRate()])
    assert set(history) == {"loss", *FIGURES}


# What is warned of.


def test_no_mark_at_all_is_warned_of_and_gives_nan_columns():
    with pytest.warns(UserWarning, match="found no mark in this model"):
        history = fit(dense_model(), 2, [BitErrorRate()])
    assert all(math.isnan(value) for name in FIGURES for value in history[name])


def test_a_frozen_mark_is_warned_of_and_still_measured(model, key):
    find_layer(model).trainable = False
    compile_model(model)
    with pytest.warns(UserWarning, match=f"{LAYER!r} is not being trained: .*frozen"):
        history = fit(model, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(model), key))]


INERT = "rebuilt without its key"


def test_a_mark_that_was_loaded_without_its_key_is_warned_of(model, tmp_path):
    fit(model)
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match=INERT):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match=f"{LAYER!r} is not being trained: its key"):
        history = fit(loaded, 1, [BitErrorRate()])
    assert math.isnan(history["ber"][0])


def test_a_mark_that_was_loaded_with_its_key_is_not_warned_of(model, key, tmp_path):
    fit(model)
    model.save(tmp_path / "model.keras")
    with keys(key):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    history = fit(loaded, 1, [BitErrorRate()])
    assert history["ber"] == [pytest.approx(expected_ber(kernel_of(loaded), key))]


def test_a_mark_that_was_cloned_without_its_key_is_warned_of(model):
    with pytest.warns(UserWarning, match=INERT):
        clone = compile_model(keras.models.clone_model(model))
    with pytest.warns(UserWarning, match=f"{LAYER!r} is not being trained: its key"):
        fit(clone, 1, [BitErrorRate()])


def test_what_attach_did_is_missed_in_a_clone(key):
    model = dense_model()
    attach(model, LAYER, key)
    clone = compile_model(keras.models.clone_model(model))
    with pytest.warns(UserWarning, match="found no mark"):
        fit(clone, 1, [BitErrorRate()])


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
def test_a_quantized_mark_is_warned_of(model):
    fit(model)
    model.quantize("int8")
    compile_model(model)
    with pytest.warns(
        UserWarning, match=f"{LAYER!r} is not being trained: .*quantized"
    ):
        fit(model, 1, [BitErrorRate()])


@pytest.mark.filterwarnings("ignore:LoRA trains two factors")
@pytest.mark.parametrize("route", ["constructor", "attach"])
def test_lora_on_a_mark_is_warned_of_and_trains(key, route):
    model = dense_model(mark(key) if route == "constructor" else None)
    if route == "attach":
        attach(model, LAYER, key)
    fit(model)
    before = kernel_of(model)
    find_layer(model).enable_lora(2)
    compile_model(model)
    with pytest.warns(UserWarning, match=f"{LAYER!r} is not being trained: LoRA"):
        history = fit(model, 2, [BitErrorRate()])
    # `layer.kernel` is the merged kernel, as it will be saved.
    assert not np.array_equal(kernel_of(model), before)
    expected = expected_scores(kernel_of(model), key).mean()
    assert history["z_mean"][-1] == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(history["loss"]).all()


def test_lora_factors_get_no_penalty(key):
    model = dense_model(mark(key))
    find_layer(model).enable_lora(8)
    with pytest.warns(UserWarning, match="LoRA trains two factors beside a frozen"):
        assert [float(keras.ops.convert_to_numpy(p)) for p in model.losses] == [0, 0]


# What is written to log_dir.


def test_histograms_and_pictures_can_be_read_by_tensorboard(key, tmp_path):
    model = dense_model(mark(key))
    recorder = Recorder()
    fit(model, 3, [BitErrorRate(every=2, log_dir=tmp_path), recorder])
    events = events_in(tmp_path)
    histograms = events.Histograms(f"{LAYER}/z")
    # Before training, and after the first and third epoch.
    assert [event.step for event in histograms] == [0, 1, 3]
    for event, kernel in zip(histograms[1:], recorder.kernels[::2], strict=True):
        z, histogram = expected_scores(kernel, key), event.histogram_value
        assert histogram.num == sum(histogram.bucket) == 32
        assert histogram.min == pytest.approx(z.min())
        assert histogram.max == pytest.approx(z.max())
        assert histogram.sum == pytest.approx(z.sum())
        assert histogram.sum_squares == pytest.approx(np.sum(z**2))
        counts = [np.sum(z <= limit + 1e-9) for limit in histogram.bucket_limit]
        np.testing.assert_array_equal(np.cumsum(histogram.bucket), counts)
    (_, picture, _) = events.Images(f"{LAYER}/recovered bits")
    # 32 bits: six rows of six, the last four fields without a bit.
    assert (picture.width, picture.height) == (48, 48)
    pixels = decoded(picture.encoded_image_string)[4::8, 4::8].reshape(36, 3)
    wrong = expected_scores(recorder.kernels[0], key) <= 0
    red = (pixels[:32] == [200, 30, 30]).all(axis=1)
    np.testing.assert_array_equal(red, wrong)
    assert wrong.any()
    np.testing.assert_array_equal(
        pixels[:32][~wrong], 255 * key.message[~wrong, None].repeat(3, axis=1)
    )
    assert (pixels[32:] == 128).all()


def decoded(png):
    import io

    from matplotlib.image import imread

    return np.round(255 * imread(io.BytesIO(png), format="png")[..., :3]).astype(int)


def test_two_fits_into_one_folder_give_both_runs_events(model, tmp_path):
    callback = BitErrorRate(log_dir=str(tmp_path))
    fit(model, 2, [callback])
    fit(model, 4, [callback], initial_epoch=2)
    events = events_in(tmp_path)
    assert [e.step for e in events.Histograms(f"{LAYER}/z")] == [
        *(0, 1, 2),
        *(2, 3, 4),
    ]


def test_a_kernel_of_nan_is_reported_as_lost(key, tmp_path):
    model = dense_model(mark(key))
    kernel = find_layer(model).kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    history = fit(model, 1, [BitErrorRate(log_dir=tmp_path)])
    assert history["ber"] == [1.0]
