"""The examples that networks learn: pictures, and whatever else has labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_wm.research.answers import answers_probabilities

_DIGITS_TEST = 540
_TEST_BATCH = 500
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Examples:
    """A labelled set of examples, split into training and test.

    Attributes:
        name: What to call it.
        x_train: Examples, shape `(N, ...)`, float32, as the network takes them.
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
        """Which test examples a network gets wrong, shape `(len(x_test),)`.

        A network of one answer says with it how much it is for class 1.
        """
        answers = model.predict(self.x_test, batch_size=_TEST_BATCH, verbose=0)
        if answers.shape[1] == 1:
            chosen = answers[:, 0] > (
                0.5 if answers_probabilities(model, answers) else 0
            )
        else:
            chosen = answers.argmax(axis=1)
        wrong: NDArray[np.bool_] = chosen != self.y_test
        return wrong

    def test_error(self, model: Any) -> float:
        """The share of test examples that a network gets wrong."""
        return float(np.mean(self.wrong_answers(model)))

    def with_channel(self) -> Self:
        """The same with one more axis, of length 1, at the end."""
        return replace(
            self, x_train=self.x_train[..., None], x_test=self.x_test[..., None]
        )


class Pictures(Examples):
    """Examples of shape `(height, width, channels)`."""

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
    """Loads pictures by their name, or from a file.

    Args:
        name: As for `load_examples`. Grey pictures may be without the axis of one
            channel.

    Returns:
        `Pictures`.

    Raises:
        ImportError: If the extra `demo` is missing.
        ValueError: If the file does not hold such arrays, or they do not fit together.
    """
    found = load_examples(name)
    if found.x_train.ndim == 3:
        found = found.with_channel()
    if found.x_train.ndim != 4:
        raise _unusable(
            name, f"pictures of shape {found.x_train.shape}, expected rank 3 or 4"
        )
    return Pictures(**vars(found))


def load_examples(name: str) -> Examples:
    """Loads examples of any shape by their name, or from a file.

    Args:
        name: `"digits"`: scikit-learn's 1,797 digits of 8 x 8, the last 540
            for testing (needs the extra `demo`, no download). `"cifar10"`:
            through `keras.datasets`, which downloads it. Otherwise an `.npz`
            file with the arrays `x_train`, `y_train`, `x_test` and `y_test`,
            as `keras.datasets` returns them. Integers of rank 3 and 4 are pictures,
            and from 0 to 255 become floats from 0 to 1. Other integers, such as
            sequences of words, and floats are taken as they are.

    Returns:
        `Examples`.

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


def _digits() -> Examples:
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
    x, y = digits.images[order, ..., None] / 16, digits.target[order]
    split = len(y) - _DIGITS_TEST
    return _prepared("digits", x[:split], y[:split], x[split:], y[split:])


def _from_file(path: Path) -> Examples:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _prepared(path.stem, *(arrays[name] for name in _ARRAYS))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _unusable(str(path), error) from error


def _unusable(name: str, reason: object) -> ValueError:
    return ValueError(
        "Expected 'digits', 'cifar10' or an .npz file with the arrays "
        f"{', '.join(_ARRAYS)}. Received: {name!r} ({reason})"
    )


def _prepared(name: str, *arrays: Any) -> Examples:
    x_train, y_train, x_test, y_test = arrays
    train = _inputs(x_train), _labels(y_train)
    test = _inputs(x_test), _labels(y_test)
    for examples, labels in (train, test):
        if not len(examples) or len(examples) != len(labels):
            raise ValueError(
                f"{len(examples)} examples and {len(labels)} labels, expected a label "
                "for each of one or more"
            )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"examples of shape {train[0].shape[1:]} for training and of shape "
            f"{test[0].shape[1:]} for tests, expected the same"
        )
    return Examples(name, *train, *test)


def _inputs(x: Any) -> NDArray[np.float32]:
    are_pixels = x.ndim in (3, 4) and np.issubdtype(x.dtype, np.integer)
    return (np.asarray(x, np.float32) / (255 if are_pixels else 1)).astype(np.float32)


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
