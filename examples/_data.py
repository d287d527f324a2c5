"""Synthetic data in the style of the data sets that Keras's examples download."""

from __future__ import annotations

import numpy as np


def pictures(
    count: int, size: int = 12, noise: float = 0.6, shift: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures of ten classes, values from 0 to 1, and their labels.

    Each class has a coarse pattern, which is shifted. Noise is added.

    Args:
        count: Number of pictures.
        size: Height and width, a multiple of 4.
        noise: Standard deviation of the noise.
        shift: Largest shift of a pattern, in pixels.
        seed: Seed of the pictures. The classes are the same for all seeds.
    """
    classes = np.random.default_rng(10).random((10, size // 4, size // 4, 1))
    patterns = np.kron(classes > 0.5, np.ones((1, 4, 4, 1)))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    shifts = rng.integers(-shift, shift + 1, (count, 2))
    shifted = [
        np.roll(patterns[label], offset, (0, 1))
        for label, offset in zip(labels, shifts, strict=True)
    ]
    noisy = np.array(shifted) + noise * rng.standard_normal(np.shape(shifted))
    return np.clip(noisy, 0, 1).astype("float32"), labels


def discs(count: int, size: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns noisy pictures of a disc, and masks: 0 outside, 1 inside, 2 its edge."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(size / 3, 2 * size / 3, (2, count, 1, 1))
    radius = rng.uniform(size / 6, size / 3, (count, 1, 1))
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - centre[0], columns - centre[1]) - radius
    masks = np.select([np.abs(distance) < 1.5, distance < 0], [2, 1], 0)
    colours = rng.uniform(0.2, 0.8, (2, count, 1, 1, 3))
    inside = (distance < 0)[..., np.newaxis]
    pictures = np.where(inside, colours[0], colours[1])
    pictures = pictures + 0.1 * rng.standard_normal(pictures.shape)
    return pictures.astype("float32"), masks


def reviews(
    count: int, words: int = 1000, length: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns texts as numbers of words, and labels: 1 positive, 0 negative.

    A tenth of the vocabulary is positive and a tenth negative. The label says which of
    them are more frequent in the text.
    """
    rng = np.random.default_rng(seed)
    texts = rng.integers(1, words, (count, length))
    labels = rng.integers(0, 2, count)
    tenth = words // 10
    judging = rng.random((count, length)) < 0.15
    judgement = rng.integers(1, tenth, (count, length)) + tenth * labels[:, np.newaxis]
    return np.where(judging, judgement, texts), labels


def engine_noise(
    count: int, length: int = 40, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns time series of shape `(count, length, 1)`, and labels: 1 for a fault.

    A fault adds a short burst of a higher frequency.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(length)
    phase = rng.uniform(0, 2 * np.pi, (count, 1))
    start = rng.uniform(0, 0.8 * length, (count, 1))
    labels = rng.integers(0, 2, count)
    burst = np.exp(-(((time - start) / 8) ** 2)) * np.sin(1.6 * time)
    series = np.sin(0.3 * time + phase) + 1.5 * labels[:, np.newaxis] * burst
    series = series + 0.5 * rng.standard_normal((count, length))
    return series[..., np.newaxis].astype("float32"), labels


def patients(count: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns columns of a table by name, and labels: 1 for a disease."""
    rng = np.random.default_rng(seed)
    table = {
        "age": rng.uniform(30, 80, count).astype("float32"),
        "pressure": rng.normal(130, 20, count).astype("float32"),
        "cholesterol": rng.normal(240, 50, count).astype("float32"),
        "pain": rng.integers(0, 4, count),
        "thal": rng.choice(["fixed", "normal", "reversible"], count),
    }
    risk = (table["age"] - 55) / 12 + (table["pressure"] - 130) / 20
    risk = risk + 1.5 * (table["pain"] == 2) - 1.5 * (table["thal"] == "normal")
    labels = (risk + rng.standard_normal(count) > 0).astype("float32")
    return table, labels
