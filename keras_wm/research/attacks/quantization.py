"""Quantization: storing weights with fewer bits."""

from __future__ import annotations

import numpy as np

from keras_wm.research.attacks.attack import Attack, Kernel, each_kernel

_LLOYD_ITERATIONS = 20
_FLOAT16_BITS = 16


def _quantized(kernel: Kernel, bits: float, rng: np.random.Generator) -> Kernel:
    """Rounds to float16, or to integers of fewer bits with a scale for each filter."""
    if round(bits) >= _FLOAT16_BITS:
        return kernel.astype(np.float16).astype(np.float32)
    largest = 2 ** (round(bits) - 1) - 1
    reach = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)), keepdims=True)
    scale = np.where(reach > 0, reach / largest, 1).astype(np.float32)
    rounded: Kernel = np.round(kernel / scale) * scale
    return rounded


def _clustered(kernel: Kernel, bits: float, rng: np.random.Generator) -> Kernel:
    """Replaces each weight by the nearest of `2**bits` values (Lloyd's algorithm)."""
    weights = np.sort(kernel.reshape(-1).astype(np.float64))
    sums = np.append(0, np.cumsum(weights))
    values = np.quantile(
        weights, (np.arange(2 ** round(bits)) + 0.5) / 2 ** round(bits)
    )
    for _ in range(_LLOYD_ITERATIONS):
        borders = np.searchsorted(weights, (values[1:] + values[:-1]) / 2)
        borders = np.concatenate([[0], borders, [weights.size]])
        counts = np.diff(borders)
        means = np.diff(sums[borders]) / np.maximum(counts, 1)
        values = np.where(counts > 0, means, values)
    nearest = np.searchsorted((values[1:] + values[:-1]) / 2, kernel)
    clustered: Kernel = values[nearest].astype(np.float32)
    return clustered


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
