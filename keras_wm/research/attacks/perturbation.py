"""Changing weights without data: adding noise, or subtracting the mean filter."""

from __future__ import annotations

import numpy as np

from keras_wm.research.attacks.attack import Attack, Kernel, each_kernel


def _noisy(kernel: Kernel, strength: float, rng: np.random.Generator) -> Kernel:
    noise = strength * kernel.std() * rng.normal(size=kernel.shape)
    noisy: Kernel = (kernel + noise).astype(np.float32)
    return noisy


def _shifted(kernel: Kernel, strength: float, rng: np.random.Generator) -> Kernel:
    shifted: Kernel = kernel - strength * kernel.mean(axis=-1, keepdims=True)
    return shifted


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
