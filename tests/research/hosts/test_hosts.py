"""The host network and the pictures it learns."""

import numpy as np
import pytest

from keras_wm.research.datasets import Pictures, load_examples, load_pictures


def test_wrn_10_4_is_the_papers_network():
    from keras_wm.research.hosts.wide_resnet import wide_resnet

    model = wide_resnet((32, 32, 3), 10)
    shapes = {
        layer.name: tuple(layer.kernel.shape)
        for layer in model.layers
        if layer.name.endswith(("conv1", "conv2"))
    }
    assert shapes == {
        "conv1": (3, 3, 3, 16),
        "conv2_block1_conv1": (3, 3, 16, 64),
        "conv2_block1_conv2": (3, 3, 64, 64),
        "conv3_block1_conv1": (3, 3, 64, 128),
        "conv3_block1_conv2": (3, 3, 128, 128),
        "conv4_block1_conv1": (3, 3, 128, 256),
        "conv4_block1_conv2": (3, 3, 256, 256),
    }
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize(
    ("n", "k", "millions"), [(2, 4, 2.7), (4, 10, 36.5), (6, 1, 0.6)]
)
def test_parameter_counts_are_those_of_the_wide_resnet_paper(n, k, millions):
    """Zagoruyko & Komodakis (2016), tables 2 and 4: WRN-16-4, WRN-28-10, WRN-40-1."""
    from keras_wm.research.hosts.wide_resnet import wide_resnet

    model = wide_resnet((32, 32, 3), 10, n, k)
    assert model.count_params() / 1e6 == pytest.approx(millions, abs=0.06)


def test_resolution_halves_in_the_last_two_groups():
    from keras_wm.research.hosts.wide_resnet import wide_resnet

    model = wide_resnet((32, 32, 3), 10)
    sizes = [model.get_layer(f"conv{g}_block1_add").output.shape[1] for g in (2, 3, 4)]
    assert sizes == [32, 16, 8]


def test_weight_decay_is_the_gradient_it_says():
    from keras_wm.research.hosts.wide_resnet import wide_resnet

    model = wide_resnet((8, 8, 1), 10, weight_decay=5e-4)
    kernels = [w for w in model.weights if w.name == "kernel"]
    expected = sum(5e-4 / 2 * np.sum(np.square(np.asarray(w))) for w in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)


def test_a_regularizer_for_no_convolution_lists_the_names():
    from keras_wm.research.hosts.wide_resnet import wide_resnet

    with pytest.raises(ValueError, match=r"'conv9'.*conv4_block1_conv2"):
        wide_resnet((8, 8, 1), 10, regularizers={"conv9": "l2"})


@pytest.mark.parametrize("arguments", [{"n": 0}, {"k": 0}, {"input_shape": (2, 2, 1)}])
def test_an_impossible_network_is_refused(arguments):
    from keras_wm.research.hosts.wide_resnet import wide_resnet

    with pytest.raises(ValueError, match="n >= 1, k >= 1"):
        wide_resnet(**{"input_shape": (8, 8, 1), "classes": 10, **arguments})


def test_the_papers_rate_falls_at_30_60_and_80_percent():
    from keras_wm.research.hosts.wide_resnet import paper_optimizer

    schedule = paper_optimizer(1000)._learning_rate
    rates = [float(schedule(step)) for step in (1, 299, 301, 601, 801)]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.004, 0.0008])
    slower = paper_optimizer(1000, rate=0.01)._learning_rate
    assert float(slower(1)) == pytest.approx(0.01)


def test_digits_are_1257_and_540_pictures_of_10_classes():
    digits = load_pictures("digits")
    assert digits.x_train.shape == (1257, 8, 8, 1)
    assert digits.x_test.shape == (540, 8, 8, 1)
    assert digits.classes == 10
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
    assert set(digits.y_test) == set(range(10))


def test_a_file_of_arrays_is_read_as_keras_gives_them(tmp_path, rng):
    x, y = rng.integers(0, 256, (6, 8, 8, 3), np.uint8), rng.integers(0, 3, (6, 1))
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    pictures = load_pictures(str(tmp_path / "mine.npz"))
    np.testing.assert_allclose(pictures.x_train, x / 255, rtol=1e-6)
    assert pictures.y_train.tolist() == y.ravel().tolist()
    assert pictures.name == "mine"


def test_floats_are_taken_as_they_are(tmp_path, rng):
    x, y = rng.normal(size=(6, 8, 8, 3)), np.arange(6.0)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    pictures = load_pictures(str(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(pictures.x_train, np.float32(x))
    assert pictures.y_train.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_train": np.zeros(5)}, "6 examples and 5 labels"),
        ({"x_test": np.zeros((0, 8, 8)), "y_test": np.zeros(0)}, "0 examples"),
        ({"x_test": np.zeros((6, 8, 9, 1))}, r"\(8, 8, 1\) for training.*\(8, 9, 1\)"),
        ({"y_train": np.eye(6)}, r"labels of shape \(6, 6\).*argmax"),
        ({"y_train": np.full(6, 0.5)}, "no class indices"),
        ({"y_test": np.full(6, -1)}, "no class indices"),
        (dict.fromkeys(["x_train", "x_test"], np.zeros((6, 64))), r"shape \(6, 64\)"),
        ({"y_train": np.array(["cat"] * 6)}, "labels|cat"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, arrays, message):
    x, y = np.zeros((6, 8, 8, 1), np.uint8), np.zeros(6, int)
    good = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    np.savez(tmp_path / "mine.npz", **(good | arrays))
    with pytest.raises(ValueError, match=rf"Expected 'digits'.*mine\.npz.*{message}"):
        load_pictures(str(tmp_path / "mine.npz"))


@pytest.mark.parametrize(
    "shape", [(6,), (6, 12), (6, 5, 3), (6, 8, 8, 1), (6, 2, 3, 4, 5)]
)
def test_examples_may_have_any_shape(tmp_path, rng, shape):
    x, y = rng.normal(size=shape), np.arange(6)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    examples = load_examples(str(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(examples.x_train, np.float32(x))
    np.testing.assert_array_equal(examples.x_test, np.float32(x))


@pytest.mark.parametrize(("shape", "scale"), [((6, 12), 1), ((6, 8, 8), 255)])
def test_integers_are_pixels_in_pictures_and_words_in_sequences(
    tmp_path, rng, shape, scale
):
    x, y = rng.integers(0, 256, shape), np.arange(6)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    examples = load_examples(str(tmp_path / "mine.npz"))
    np.testing.assert_allclose(examples.x_train, x / scale, rtol=1e-6)


def test_turned_pictures_are_labelled_by_their_quarters(rng):
    x = rng.normal(size=(50, 4, 4, 2)).astype(np.float32)
    pictures = Pictures("mine", x[:30], np.zeros(30, int), x[30:], np.zeros(20, int))
    turned = pictures.turned()
    assert turned.classes == 4
    for before, after, quarters in (
        (pictures.x_train, turned.x_train, turned.y_train),
        (pictures.x_test, turned.x_test, turned.y_test),
    ):
        assert set(quarters) == {0, 1, 2, 3}
        for one, other, quarter in zip(before, after, quarters, strict=True):
            # A quarter turn to the left: what was the last column is the first row.
            for _ in range(quarter):
                one = np.transpose(one, (1, 0, 2))[::-1]
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(turned.y_train, pictures.turned().y_train)


def test_only_square_pictures_can_be_turned():
    x, y = np.zeros((2, 4, 6, 1), np.float32), np.zeros(2, int)
    with pytest.raises(ValueError, match=r"square.*\(4, 6, 1\)"):
        Pictures("mine", x, y, x, y).turned()


def test_another_file_says_what_was_expected(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"x_train, y_train.*mine\.npz"):
        load_pictures(str(tmp_path / "mine.npz"))
    with pytest.raises(ValueError, match=r"'digits', 'cifar10'.*'mnist'"):
        load_pictures("mnist")
