"""Data sets, built in or from files."""

import numpy as np
import pytest

from keras_wm.research.datasets import Pictures, load_examples, load_pictures


def test_digits_are_1257_and_540_pictures_of_10_classes():
    digits = load_pictures("digits")
    assert digits.x_train.shape == (1257, 8, 8, 1)
    assert digits.x_test.shape == (540, 8, 8, 1)
    assert digits.classes == 10
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
    assert set(digits.y_test) == set(range(10))


def test_a_file_is_read_with_arrays_as_keras_returns_them(tmp_path, rng):
    x, y = rng.integers(0, 256, (6, 8, 8, 3), np.uint8), rng.integers(0, 3, (6, 1))
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    pictures = load_pictures(str(tmp_path / "mine.npz"))
    np.testing.assert_allclose(pictures.x_train, x / 255, rtol=1e-6)
    assert pictures.y_train.tolist() == y.ravel().tolist()
    assert pictures.name == "mine"


def test_floats_are_not_scaled(tmp_path, rng):
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
        ({"y_train": np.full(6, 0.5)}, "not class indices"),
        ({"y_test": np.full(6, -1)}, "not class indices"),
        (dict.fromkeys(["x_train", "x_test"], np.zeros((6, 64))), r"shape \(6, 64\)"),
        ({"y_train": np.array(["cat"] * 6)}, "labels|cat"),
    ],
)
def test_arrays_that_do_not_match_are_rejected(tmp_path, arrays, message):
    x, y = np.zeros((6, 8, 8, 1), np.uint8), np.zeros(6, int)
    good = {"x_train": x, "y_train": y, "x_test": x, "y_test": y}
    np.savez(tmp_path / "mine.npz", **(good | arrays))
    with pytest.raises(ValueError, match=rf"Expected 'digits'.*mine\.npz.*{message}"):
        load_pictures(str(tmp_path / "mine.npz"))


@pytest.mark.parametrize(
    "shape", [(6,), (6, 12), (6, 5, 3), (6, 8, 8, 1), (6, 2, 3, 4, 5)]
)
def test_examples_can_have_any_shape(tmp_path, rng, shape):
    x, y = rng.normal(size=shape), np.arange(6)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    examples = load_examples(str(tmp_path / "mine.npz"))
    np.testing.assert_array_equal(examples.x_train, np.float32(x))
    np.testing.assert_array_equal(examples.x_test, np.float32(x))


@pytest.mark.parametrize(("shape", "scale"), [((6, 12), 1), ((6, 8, 8), 255)])
def test_integers_are_scaled_in_pictures_but_not_in_sequences(
    tmp_path, rng, shape, scale
):
    x, y = rng.integers(0, 256, shape), np.arange(6)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    examples = load_examples(str(tmp_path / "mine.npz"))
    np.testing.assert_allclose(examples.x_train, x / scale, rtol=1e-6)


def test_rotated_pictures_are_labelled_by_their_quarter_turns(rng):
    x = rng.normal(size=(50, 4, 4, 2)).astype(np.float32)
    pictures = Pictures("mine", x[:30], np.zeros(30, int), x[30:], np.zeros(20, int))
    rotated = pictures.rotated()
    assert rotated.classes == 4
    for before, after, quarters in (
        (pictures.x_train, rotated.x_train, rotated.y_train),
        (pictures.x_test, rotated.x_test, rotated.y_test),
    ):
        assert set(quarters) == {0, 1, 2, 3}
        for picture, result, turns in zip(before, after, quarters, strict=True):
            # A quarter turn to the left moves the last column to the first row.
            for _ in range(turns):
                picture = np.transpose(picture, (1, 0, 2))[::-1]
            np.testing.assert_array_equal(picture, result)
    np.testing.assert_array_equal(rotated.y_train, pictures.rotated().y_train)


def test_only_square_pictures_can_be_rotated():
    x, y = np.zeros((2, 4, 6, 1), np.float32), np.zeros(2, int)
    with pytest.raises(ValueError, match=r"square.*\(4, 6, 1\)"):
        Pictures("mine", x, y, x, y).rotated()


def test_an_unsuitable_file_is_rejected_with_the_expected_arrays(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"x_train, y_train.*mine\.npz"):
        load_pictures(str(tmp_path / "mine.npz"))
    with pytest.raises(ValueError, match=r"'digits', 'cifar10'.*'mnist'"):
        load_pictures("mnist")
