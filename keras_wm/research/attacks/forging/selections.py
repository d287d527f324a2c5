"""Choices among what is in the file: layers to read as one, and arrays to add."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from keras_wm.research.attacks.attack import kernels_by_layer
from keras_wm.research.attacks.forging.forgery import Forgery, fresh_key
from keras_wm.research.attacks.forging.references import with_mark
from keras_wm.scheme.detection import detect, detect_jointly
from keras_wm.scheme.key import WatermarkKey

_WEIGHTS = "model.weights.h5"
_ADDED = "layers/leftover/vars/0"


def best_subset(model: Any, seed: int) -> Forgery:
    """Reads those layers as one whose scores happen to be the highest.

    The best k of n independent scores have a sum that grows as about 0.64 sqrt(n)
    standard deviations, at k of about 0.27 n.
    """
    begin = time.process_time()
    key = fresh_key(seed)
    scored = sorted(
        (
            (float(detect(kernel, key).z.sum()), layer.name, kernel)
            for layer, kernel in _fitting(model, key)
        ),
        key=lambda entry: -entry[0],
    )
    p_of_count = {
        count: detect_jointly((kernel, key) for _, _, kernel in scored[:count]).log10_p
        for count in range(1, len(scored) + 1)
    }
    count = min(p_of_count, key=lambda count: p_of_count[count])
    names = [name for _, name, _ in scored[:count]]
    seconds = time.process_time() - begin
    return Forgery(model, key, {"layer": names}, len(scored), seconds / len(scored))


def _fitting(model: Any, key: WatermarkKey) -> list[tuple[Any, Any]]:
    """Returns the layers with a kernel that can hold the message, and the kernels."""
    return [
        (layer, np.asarray(kernel))
        for layer, kernel in kernels_by_layer(model)
        if key.fits(kernel.shape)
    ]


def unused_weights(model: Any, layer: str, seed: int, folder: Path) -> Forgery:
    """Adds an array with the forger's mark to the file, which no layer uses.

    Keras loads the file, and the model computes the same as before.

    Args:
        model: The innocent model.
        layer: Name of a layer; the array gets the shape of its kernel.
        seed: Random seed of the key and of the array.
        folder: Folder for the file.
    """
    key, path = fresh_key(seed), folder / "forged.keras"
    shape = tuple(model.get_layer(layer).kernel.shape)
    kernel = with_mark(np.random.default_rng(seed).normal(size=shape), key)
    model.save(folder / "innocent.keras")
    with (
        zipfile.ZipFile(folder / "innocent.keras") as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            if name == _WEIGHTS:
                buffer = io.BytesIO(data)
                with h5py.File(buffer, "a") as weights:
                    weights[_ADDED] = kernel.astype("float32")
                data = buffer.getvalue()
            target.writestr(name, data)
    return Forgery(path, key)
