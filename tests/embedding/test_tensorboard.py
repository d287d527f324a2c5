"""BitErrorRate(log_dir=...): histograms and pictures that TensorBoard can read."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from keras_wm import BitErrorRate
from tests.embedding.recorder import Recorder, events_in
from tests.models import LAYER, expected_scores, fit

pytestmark = pytest.mark.backends


@pytest.fixture
def written(model, tmp_path):
    """The events of a training of three epochs, and the kernels of its epochs."""
    recorder = Recorder()
    fit(model, 3, [BitErrorRate(every=2, log_dir=tmp_path), recorder])
    return events_in(tmp_path), recorder.kernels


def test_histograms_hold_the_scores(written, key):
    events, kernels = written
    histograms = events.Histograms(f"{LAYER}/z")
    # Before training, and after the first and the third epoch.
    assert [event.step for event in histograms] == [0, 1, 3]
    for event, kernel in zip(histograms[1:], kernels[::2], strict=True):
        z, histogram = expected_scores(kernel, key), event.histogram_value
        assert histogram.num == sum(histogram.bucket) == 32
        assert histogram.min == pytest.approx(z.min())
        assert histogram.max == pytest.approx(z.max())
        assert histogram.sum == pytest.approx(z.sum())
        assert histogram.sum_squares == pytest.approx(np.sum(z**2))
        counts = [np.sum(z <= limit + 1e-9) for limit in histogram.bucket_limit]
        np.testing.assert_array_equal(np.cumsum(histogram.bucket), counts)


def test_pictures_show_the_recovered_bits(written, key):
    events, kernels = written
    (_, picture, _) = events.Images(f"{LAYER}/recovered bits")
    # 32 bits: six rows of six, the last four fields without a bit.
    assert (picture.width, picture.height) == (48, 48)
    pixels = decoded(picture.encoded_image_string)[4::8, 4::8].reshape(36, 3)
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


def test_two_fits_into_one_folder_give_the_events_of_both_runs(model, tmp_path):
    callback = BitErrorRate(log_dir=str(tmp_path))
    fit(model, 2, [callback])
    fit(model, 4, [callback], initial_epoch=2)
    steps = [event.step for event in events_in(tmp_path).Histograms(f"{LAYER}/z")]
    assert steps == [0, 1, 2, 2, 3, 4]
