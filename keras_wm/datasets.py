"""The pictures that host networks learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGITS_TEST = 540
_TEST_BATCH = 500


@dataclass(frozen=True)
class Pictures:
    """A labelled set of pictures, split into training and test.

    Attributes:
        name: What to call it.
        x_train: Pictures, shape `(N, height, width, channels)`, float32, as the network
            takes them.
        y_train: Class indices, shape `(N,)`.
        x_test: As `x_train`.
        y_test: As `y_train`.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.y_train.max()) + 1

    def wrong_answers(self, model: Any) -> NDArray[np.bool_]:
        """Which test pictures a network gets wrong, shape `(len(x_test),)`."""
        answers = model.predict(self.x_test, batch_size=_TEST_BATCH, verbose=0)
        wrong: NDArray[np.bool_] = answers.argmax(axis=1) != self.y_test
        return wrong

    def test_error(self, model: Any) -> float:
        """The share of test pictures that a network gets wrong."""
        return float(np.mean(self.wrong_answers(model)))

    def turned(self) -> Pictures:
        """Another task on the same pictures: by how many quarters each is turned.

        As in Gidaris et al. (2018). The turns are drawn once, with a fixed seed.

        Raises:
            ValueError: If the pictures are not square.
        """
        if self.x_train.shape[1] != self.x_train.shape[2]:
            raise ValueError(
                "Only square pictures can be turned. Received pictures of shape "
                f"{self.x_train.shape[1:]}"
            )
        rng = np.random.default_rng(0)
        turns = [rng.integers(0, 4, len(x)) for x in (self.x_train, self.x_test)]
        return Pictures(
            f"{self.name}, turned",
            _turned(self.x_train, turns[0]),
            turns[0],
            _turned(self.x_test, turns[1]),
            turns[1],
        )


def _turned(x: NDArray[np.float32], turns: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.stack([np.rot90(one, turn) for one, turn in zip(x, turns, strict=True)])


def load_pictures(name: str) -> Pictures:
    """Loads a data set by its name, or from a file.

    Args:
        name: `"digits"`: scikit-learn's 1,797 digits of 8 x 8, the last 540
            for testing (needs the extra `demo`, no download). `"cifar10"`:
            through `keras.datasets`, which downloads it. Otherwise an `.npz`
            file with the arrays `x_train`, `y_train`, `x_test` and `y_test`,
            as `keras.datasets` returns them. Integers from 0 to 255 become floats
            from 0 to 1; floats are taken as they are.

    Returns:
        `Pictures`.

    Raises:
        ImportError: If the extra `demo` is missing.
        ValueError: If the file does not hold such arrays, or they do not fit together.
    """
    if name == "digits":
        return _digits()
    if name == "cifar10":
        from keras.datasets import cifar10

        (x_train, y_train), (x_test, y_test) = cifar10.load_data()
        return _prepared("CIFAR-10", x_train, y_train, x_test, y_test)
    return _from_file(Path(name))


def _digits() -> Pictures:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn. "
            'Install it with: pip install "keras-wm[demo]"'
        ) from error
    digits = load_digits()
    # They are ordered by writer; a fixed shuffle puts every writer into both parts.
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = digits.images[order] / 16, digits.target[order]
    split = len(y) - _DIGITS_TEST
    return _prepared("digits", x[:split], y[:split], x[split:], y[split:])


def _from_file(path: Path) -> Pictures:
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _prepared(path.stem, *(arrays[name] for name in names))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected 'digits', 'cifar10' or an .npz file with the arrays "
            f"{', '.join(names)}. Received: {str(path)!r} ({error})"
        ) from error


def _prepared(name: str, *arrays: Any) -> Pictures:
    x_train, y_train, x_test, y_test = arrays
    train = _pixels(x_train), _labels(y_train)
    test = _pixels(x_test), _labels(y_test)
    for pictures, labels in (train, test):
        if not len(pictures) or len(pictures) != len(labels):
            raise ValueError(
                f"{len(pictures)} pictures and {len(labels)} labels, expected a label "
                "for each of one or more"
            )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"pictures of shape {train[0].shape[1:]} for training and of shape "
            f"{test[0].shape[1:]} for tests, expected the same"
        )
    return Pictures(name, *train, *test)


def _pixels(x: Any) -> NDArray[np.float32]:
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4:
        raise ValueError(f"pictures of shape {x.shape}, expected rank 3 or 4")
    scale = 255 if np.issubdtype(x.dtype, np.integer) else 1
    return (np.asarray(x, np.float32) / scale).astype(np.float32)


def _labels(y: Any) -> NDArray[np.int64]:
    if y.shape not in ((len(y),), (len(y), 1)):
        raise ValueError(
            f"labels of shape {y.shape}, expected class indices of shape (N,) or "
            "(N, 1); of one-hot labels take y.argmax(axis=1)"
        )
    labels: NDArray[np.int64] = y.reshape(-1).astype(np.int64)
    if np.any(labels != y.reshape(-1)) or np.any(labels < 0):
        raise ValueError("labels that are no class indices, expected 0, 1, 2, ...")
    return labels
