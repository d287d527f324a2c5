"""Changing each kernel without data: noise, the mean filter, and fewer bits."""

from __future__ import annotations

import numpy as np

from keras_wm.research.attacks.attack import Attack, Kernel, each_kernel

_LLOYD_ITERATIONS = 20
_FLOAT16_BITS = 16


def _noisy(kernel: Kernel, strength: float, rng: np.random.Generator) -> Kernel:
    noise = strength * kernel.std() * rng.normal(size=kernel.shape)
    return np.asarray(kernel + noise, np.float32)


def _shifted(kernel: Kernel, strength: float, rng: np.random.Generator) -> Kernel:
    return np.asarray(kernel - strength * kernel.mean(axis=-1, keepdims=True))


def _quantized(kernel: Kernel, bits: float, rng: np.random.Generator) -> Kernel:
    """Rounds to float16, or to integers of fewer bits with a scale for each filter."""
    if round(bits) >= _FLOAT16_BITS:
        return kernel.astype(np.float16).astype(np.float32)
    largest = 2 ** (round(bits) - 1) - 1
    reach = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    scale = np.where(reach > 0, reach / largest, 1).astype(np.float32)
    return np.asarray(np.round(kernel / scale) * scale)


def _clustered(kernel: Kernel, bits: float, rng: np.random.Generator) -> Kernel:
    """Replaces each weight by the nearest of `2**bits` values (Lloyd's algorithm)."""
    weights = np.sort(kernel.reshape(-1).astype(np.float64))
    sums = np.append(0, np.cumsum(weights))
    count = 2 ** round(bits)
    values = np.quantile(weights, (np.arange(count) + 0.5) / count)
    for _ in range(_LLOYD_ITERATIONS):
        borders = np.searchsorted(weights, (values[1:] + values[:-1]) / 2)
        borders = np.concatenate([[0], borders, [weights.size]])
        counts = np.diff(borders)
        means = np.diff(sums[borders]) / np.maximum(counts, 1)
        values = np.where(counts > 0, means, values)
    nearest = np.searchsorted((values[1:] + values[:-1]) / 2, kernel)
    return np.asarray(values[nearest], np.float32)


NOISE = Attack(
    "noise",
    "Adds normal noise to every kernel.",
    "standard deviations of the kernel's weights",
    (0.01, 0.05, 0.1, 0.2, 0.5, 1.0),
    each_kernel(_noisy),
)
# From the Watermark Robustness Toolbox (Lukas et al. 2022), without its noise.
SHIFTING = Attack(
    "weight-shifting",
    "Subtracts the mean filter, which carries the papers' mark, from every filter.",
    "times the mean filter",
    (0.25, 0.5, 1.0, 1.5, 2.0, 2.5),
    each_kernel(_shifted),
)
QUANTIZATION = Attack(
    "quantization",
    "Rounds kernels to float16, or to integers with a scale for each filter.",
    "bits of a weight",
    (16, 8, 6, 5, 4, 3, 2),
    each_kernel(_quantized),
)
CLUSTERING = Attack(
    "clustering",
    "Replaces the weights of a kernel by a few shared values.",
    "bits of the number of values",
    (8, 6, 5, 4, 3, 2),
    each_kernel(_clustered),
)
