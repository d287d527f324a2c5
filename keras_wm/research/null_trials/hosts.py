"""Keys that cost no scrypt, and networks and files without their marks."""

from __future__ import annotations

import hashlib
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_wm.research.alignment_trials.networks import (
    Architecture,
    ArrayModel,
    Weights,
)
from keras_wm.scheme.key import WatermarkKey
from keras_wm.scheme.secret import Secret
from keras_wm.scheme.secret_source import Projection, SecretSource
from keras_wm.utils.arrays import Floats

LAYERS = ("first", "second", "third", "fourth", "last")
BITS = 16
_WIDTH = 24
# Noise between two similar kernels, and added weights of a mark, in standard deviations
# of the kernel.
_NOISE, _STRENGTH = 0.3, 0.5


class _CheapSource(SecretSource):
    """A source whose root is the secret itself, because scrypt takes 40 ms."""

    @cached_property
    def _root(self) -> Secret:
        return self.secret


def cheap_key(
    number: int, bits: int = BITS, projection: Projection = "random"
) -> WatermarkKey:
    """Returns a key that is independent of those of other numbers."""
    secret = Secret(hashlib.sha256(f"null trial {number}".encode()).digest())
    source = _CheapSource(secret, "Somebody else", bits, projection, "keyed")
    return WatermarkKey(source)


@cache
def architecture() -> Architecture:
    """Returns a chain of dense layers with kernels of one shape."""
    layers = [keras.layers.Dense(_WIDTH, "relu", name=name) for name in LAYERS]
    return Architecture.of(keras.Sequential([keras.Input((_WIDTH,)), *layers]), {})


def draw(rng: np.random.Generator) -> Weights:
    """Returns new weights. Two kernels are similar, and one has a few large weights."""
    weights = dict(architecture().draw(rng))
    third = weights["third", "kernel"]
    noise = _NOISE * third.std() * rng.normal(size=third.shape)
    weights["fourth", "kernel"] = third + noise
    weights["last", "kernel"] = rng.standard_t(1.5, third.shape)
    return weights


def network(weights: Weights) -> ArrayModel:
    """Returns the network with these weights."""
    return architecture().model(weights)


def marked_for(weights: Weights, key: WatermarkKey, names: list[str]) -> Weights:
    """Returns weights with the marks of some recipients in the third kernel."""
    kernel = weights["third", "kernel"]
    marks = [_mark(key.for_recipient(name), kernel) for name in names]
    return {**weights, ("third", "kernel"): np.sum([kernel, *marks], axis=0)}


def _mark(key: WatermarkKey, kernel: Floats) -> Floats:
    mark = key.for_shape(kernel.shape)
    rows = mark.signs[:, None] * mark.matrix
    added = np.pad(rows.ravel(), (0, kernel.size - rows.size)).reshape(kernel.shape)
    return np.asarray(_STRENGTH * kernel.std() / added.std() * added)


def quantized_file(folder: Path, seed: int) -> Path:
    """Writes a file of dense layers in 8 bits, with a scale for each filter."""
    keras.utils.set_random_seed(seed)
    layers: list[Any] = [keras.layers.Dense(40, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((30,)), *layers, keras.layers.Dense(20)])
    # Keras warns of input layers that cannot be quantized.
    for layer in model.layers:
        layer.quantize("int8")
    path = folder / f"quantized-{seed}.keras"
    model.save(path)
    return path


def safetensors_file(folder: Path, seed: int) -> Path:
    """Writes a file whose kernels can have either order of their axes."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(seed)
    shapes = {"a.weight": (40, 30), "b.weight": (30, 30), "c.weight": (16, 3, 3, 8)}
    path = folder / f"orders-{seed}.safetensors"
    arrays = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(arrays, path)
    return path
