"""Disturbing weights without data: noise, and shifting by the mean filter."""

from __future__ import annotations

import numpy as np

from keras_wm.research.attacks.attack import Attack
from keras_wm.research.attacks.kernels import Kernel, each_kernel


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
# Of the Watermark Robustness Toolbox (Lukas et al. 2022), without its noise.
SHIFTING = Attack(
    "weight-shifting",
    "Subtracts the mean filter from every filter: what the papers' mark is read off.",
    "times the mean filter",
    (0.25, 0.5, 1.0, 1.5, 2.0, 2.5),
    each_kernel(_shifted),
)
