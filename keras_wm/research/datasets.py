"""Labelled data sets: pictures, vectors, sequences, and a network's test error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from keras_wm.files.config.calls import calls_in

_DIGITS_TEST = 540
_TEST_BATCH = 500
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# Allows for rounding in the sum of a network's probabilities.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Examples:
    """A set of labelled examples, split into training and test data.

    Attributes:
        name: Name of the data set.
        x_train: Training examples, shape `(N, ...)`, float32.
        y_train: Class indices, shape `(N,)`.
        x_test: Test examples, like `x_train`.
        y_test: Class indices, like `y_train`.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.y_train.max()) + 1

    def misclassified(self, model: Any) -> NDArray[np.bool_]:
        """Returns whether a network misclassifies each test example.

        A single output is the probability or the logit of class 1.

        Args:
            model: A Keras classifier.

        Returns:
            A boolean array of shape `(len(x_test),)`.
        """
        outputs = model.predict(self.x_test, batch_size=_TEST_BATCH, verbose=0)
        if outputs.shape[1] == 1:
            threshold = 0.5 if are_probabilities(model, outputs) else 0
            predicted = outputs[:, 0] > threshold
        else:
            predicted = outputs.argmax(axis=1)
        wrong: NDArray[np.bool_] = predicted != self.y_test
        return wrong

    def test_error(self, model: Any) -> float:
        """Returns the share of the test examples that a network misclassifies."""
        return float(np.mean(self.misclassified(model)))

    def with_channel(self) -> Self:
        """Returns the same data with a further axis of length 1 at the end."""
        return replace(
            self, x_train=self.x_train[..., None], x_test=self.x_test[..., None]
        )


class Pictures(Examples):
    """Examples of shape `(height, width, channels)`."""

    def rotated(self) -> Pictures:
        """Returns another task on the same pictures: recognising their rotation.

        Each picture is rotated by 0 to 3 quarter turns, and their number is its label
        (Gidaris et al. 2018). The rotations are drawn with a fixed seed.

        Raises:
            ValueError: If the pictures are not square.
        """
        if self.x_train.shape[1] != self.x_train.shape[2]:
            raise ValueError(
                "Expected square pictures to rotate. Received: pictures of shape "
                f"{self.x_train.shape[1:]}"
            )
        rng = np.random.default_rng(0)
        train, test = (_rotated(x, rng) for x in (self.x_train, self.x_test))
        return Pictures(f"{self.name}, rotated", *train, *test)


def _rotated(
    x: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the rotated pictures and the number of quarter turns of each."""
    turns = rng.integers(0, 4, len(x))
    rotated = [np.rot90(picture, turn) for picture, turn in zip(x, turns, strict=True)]
    return np.stack(rotated), turns


def are_probabilities(model: Any, outputs: NDArray[Any]) -> bool:
    """Returns whether a classifier's outputs are probabilities, and not logits.

    Args:
        model: The network, Functional or Sequential.
        outputs: Its outputs for some examples, shape `(N, classes)`, or `(N, 1)` for
            the second of two classes.
    """
    if outputs.shape[-1] == 1:
        # An untrained network's logits can lie between 0 and 1 as well.
        return _ends_in_sigmoid(model)
    sums = outputs.sum(axis=-1, dtype=np.float64)
    return bool(np.all(outputs >= 0) and np.all(np.abs(sums - 1) < _SUM_TOLERANCE))


def _ends_in_sigmoid(model: Any) -> bool:
    calls = calls_in(model.get_config())
    if calls is None:
        return False
    (last,) = (call for call in calls.calls if call.output == calls.outputs[0])
    return "sigmoid" in (last.config.get("activation"), last.kind.lower())


def load_pictures(name: str) -> Pictures:
    """Loads pictures as `load_examples` does.

    Args:
        name: Name or file. Grey pictures can have an axis for their single channel or
            not.

    Returns:
        `Pictures`.

    Raises:
        ImportError: As for `load_examples`.
        ValueError: As for `load_examples`, or if the examples are not pictures.
    """
    examples = load_examples(name)
    if examples.x_train.ndim == 3:
        examples = examples.with_channel()
    if examples.x_train.ndim != 4:
        raise _unusable(
            name, f"pictures of shape {examples.x_train.shape}, expected rank 3 or 4"
        )
    return Pictures(**vars(examples))


def load_examples(name: str) -> Examples:
    """Loads examples of any shape by name or from a file.

    Args:
        name: `"digits"` for scikit-learn's digits of 8 x 8 pixels, 1,257 for training
            and 540 for testing (needs the extra `demo`, no download); `"cifar10"`
            for CIFAR-10, which `keras.datasets` downloads; otherwise an `.npz` file
            with the arrays `x_train`, `y_train`, `x_test` and `y_test`, as
            `keras.datasets` returns them. Integer arrays of rank 3 and 4 are
            pictures, and are scaled from 0..255 to 0..1. Other integers, such as
            word indices, and floats are not scaled.

    Returns:
        `Examples`.

    Raises:
        ImportError: If the extra `demo` is missing.
        ValueError: If the file does not hold such arrays, or they do not match.
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
            "The digits are part of scikit-learn. "
            'Install it with: pip install "keras-wm[demo]"'
        ) from error
    digits = load_digits()
    # They are sorted by writer; a fixed shuffle puts every writer into both parts.
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
                f"{len(examples)} examples and {len(labels)} labels, expected at least "
                "one example, and one label for each"
            )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"examples of shape {train[0].shape[1:]} for training and of shape "
            f"{test[0].shape[1:]} for testing, expected equal shapes"
        )
    return Examples(name, *train, *test)


def _inputs(x: Any) -> NDArray[np.float32]:
    are_pixels = x.ndim in (3, 4) and np.issubdtype(x.dtype, np.integer)
    return (np.asarray(x, np.float32) / (255 if are_pixels else 1)).astype(np.float32)


def _labels(y: Any) -> NDArray[np.int64]:
    if y.shape not in ((len(y),), (len(y), 1)):
        raise ValueError(
            f"labels of shape {y.shape}, expected class indices of shape (N,) or "
            "(N, 1); convert one-hot labels by y.argmax(axis=1)"
        )
    labels: NDArray[np.int64] = y.reshape(-1).astype(np.int64)
    if np.any(labels != y.reshape(-1)) or np.any(labels < 0):
        raise ValueError("labels that are not class indices, expected 0, 1, 2, ...")
    return labels
