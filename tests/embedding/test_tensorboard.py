"""BitErrorRate(log_dir=...): curves, histograms, pictures and a card of the marks."""

import io
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.stats import norm
from tensorboard.util.tensor_util import make_ndarray

from keras_wm import BitErrorRate, detect
from keras_wm.embedding.marked_layers import find_marked_layers
from keras_wm.embedding.tensorboard import MarkLog
from tests.conftest import fixed_key
from tests.embedding.conftest import restored
from tests.embedding.recorder import VALUES, Recorder, events_in
from tests.models import LAYER, dense_model, expected_scores, fit, kernel_of, mark

pytestmark = [
    pytest.mark.backends,
    # TensorBoard's copies of other packages say so when they are imported.
    pytest.mark.filterwarnings("ignore:invalid escape sequence"),
    pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated"),
]

FIGURES = {f"{LAYER}/z", f"{LAYER}/z by chance", f"{LAYER}/recovered bits", "marks"}
CURVES = {f"epoch_{value}" for value in VALUES}


@pytest.fixture(scope="module")
def written(traced_model, tmp_path_factory):
    """The events of a training of three epochs, and the kernels of its epochs."""
    recorder, folder = Recorder(), tmp_path_factory.mktemp("log")
    callbacks = [BitErrorRate(every=2, log_dir=folder), recorder]
    fit(restored(traced_model), 3, callbacks)
    return events_in(folder), recorder.kernels


def contents(events, tag):
    """Returns the arrays of a tag by their step."""
    return {
        event.step: make_ndarray(event.tensor_proto) for event in events.Tensors(tag)
    }


def test_histograms_hold_the_scores(written, key):
    events, kernels = written
    histograms = contents(events, f"{LAYER}/z")
    # Before training, and after the first and the third epoch.
    assert list(histograms) == [-1, 0, 2]
    for epoch in (0, 2):
        left, right, counts = histograms[epoch].T
        z = expected_scores(kernels[epoch], key)
        assert counts.sum() == 32
        np.testing.assert_array_equal(left[1:], right[:-1])
        assert left[0] <= min(-4, z.min()) and right[-1] >= max(4, z.max())
        below = [np.sum(z <= limit + 1e-9) for limit in right]
        np.testing.assert_array_equal(np.cumsum(counts), below)


def test_chance_is_the_normal_distribution_in_the_same_bins(written):
    events, _ = written
    scores, chance = (contents(events, f"{LAYER}/z{end}") for end in ("", " by chance"))
    assert list(chance) == list(scores)
    for step, bins in chance.items():
        np.testing.assert_array_equal(bins[:, :2], scores[step][:, :2])
        below = norm.cdf(bins[:-1, 1])
        np.testing.assert_allclose(np.cumsum(bins[:-1, 2]), 32 * below, rtol=1e-9)
        assert bins[:, 2].sum() == pytest.approx(32)


def test_pictures_show_the_recovered_bits(written, key):
    events, kernels = written
    width, height, png = contents(events, f"{LAYER}/recovered bits")[0]
    # 32 bits: six rows of six, the last four fields without a bit.
    assert (int(width), int(height)) == (48, 48)
    pixels = decoded(png)[4::8, 4::8].reshape(36, 3)
    wrong = expected_scores(kernels[0], key) <= 0
    red = (pixels[:32] == [200, 30, 30]).all(axis=1)
    np.testing.assert_array_equal(red, wrong)
    assert wrong.any()
    message = key.for_shape(kernels[0].shape).message
    np.testing.assert_array_equal(
        pixels[:32][~wrong], 255 * message[~wrong, None].repeat(3, axis=1)
    )
    assert (pixels[32:] == 128).all()


def decoded(png):
    return np.round(255 * imread(io.BytesIO(png), format="png")[..., :3]).astype(int)


def test_curves_hold_the_values_of_the_logs(model, tmp_path):
    history = fit(model, 2, [BitErrorRate(log_dir=tmp_path)])
    events = events_in(tmp_path)
    for value in VALUES:
        curve = contents(events, f"epoch_{value}")
        assert list(curve) == [-1, 0, 1]
        np.testing.assert_allclose([curve[0], curve[1]], history[value], rtol=1e-6)


@pytest.mark.parametrize("position", [0, 1])
def test_each_value_is_drawn_once_beside_keras_own_callback(model, tmp_path, position):
    callbacks = [keras.callbacks.TensorBoard(tmp_path)]
    callbacks.insert(position, BitErrorRate(log_dir=tmp_path))
    fit(model, 2, callbacks)
    ours, keras_own = events_in(tmp_path), events_in(tmp_path / "train")
    assert set(ours.Tags()["tensors"]) == FIGURES
    assert set(keras_own.Tags()["tensors"]) >= CURVES
    # One axis: the last step is that of the last epoch in both.
    steps = [
        list(contents(events, tag))
        for events, tag in ((ours, f"{LAYER}/z"), (keras_own, "epoch_ber"))
    ]
    assert steps == [[-1, 0, 1], [0, 1]]


def test_two_fits_into_one_folder_continue_on_one_axis(model, tmp_path):
    callback = BitErrorRate(log_dir=str(tmp_path))
    fit(model, 2, [callback])
    fit(model, 4, [callback], initial_epoch=2)
    events = events_in(tmp_path).Tensors(f"{LAYER}/z")
    assert [event.step for event in events] == [-1, 0, 1, 1, 2, 3]
    # The state before the second fit is that after the first one.
    assert events[2].tensor_proto == events[3].tensor_proto


def test_every_summary_has_a_description(written):
    events, _ = written
    assert set(events.Tags()["tensors"]) == FIGURES | CURVES
    descriptions = {
        tag: events.SummaryMetadata(tag).summary_description for tag in FIGURES | CURVES
    }
    assert all(len(text) > 40 for text in descriptions.values())
    assert "standard deviations" in descriptions[f"{LAYER}/z"]
    assert "N(0, 1)" in descriptions[f"{LAYER}/z by chance"]
    colours = descriptions[f"{LAYER}/recovered bits"]
    assert all(colour in colours for colour in ("Black", "white", "red", "Grey"))


class Tables(HTMLParser):
    """The cells of the tables in HTML, and its tags."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.tags = [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def card_of(model, folder):
    """Returns the card of a model's marks as TensorBoard renders it."""
    from tensorboard.plugin_util import markdown_to_safe_html

    marks, log = find_marked_layers(model), MarkLog(folder, curves=False)
    key = marks[0].regularizer.key
    log.write(marks, {LAYER: detect(kernel_of(model), key)}, {}, step=0)
    log.close()
    card = contents(events_in(folder), "marks")[0]
    return Tables(markdown_to_safe_html(card.item()))


def test_the_card_names_layers_slots_owner_bits_and_commitment(tmp_path):
    key = fixed_key(owner="Example Ltd").in_slot(3)
    rows = card_of(dense_model(mark(key)), tmp_path).rows
    short = key.commitment[:8]
    assert [f"host/{LAYER}", "32 x 64", "3", short, "trained"] in rows
    assert any(row[:3] == [short, "Example Ltd", "32"] for row in rows)
    assert key.commitment in str(rows)


def test_the_card_shows_which_mark_is_not_trained_and_why(tmp_path, key):
    model = dense_model(mark(key))
    model.layers[0].trainable = False
    assert "its layer is frozen (trainable=False)" in card_of(model, tmp_path).rows[1]


@pytest.mark.parametrize(
    "owner",
    [
        "A | B",
        "<script>alert(1)</script>",
        "[x](http://example.org) ![i](http://example.org/i.png)",
        "**bold** _em_ `code` ~~~ &amp; &#60;b&#62; \\| http://example.org",
        "日本 GmbH & Söhne, 'a' \"b\"",
    ],
)
def test_an_owner_is_shown_as_typed_and_never_read_as_markup(owner, tmp_path):
    card = card_of(dense_model(mark(fixed_key(owner=owner))), tmp_path)
    assert any(row[1:2] == [owner] for row in card.rows)
    assert not card.tags & {"a", "img", "script", "em", "b"}
