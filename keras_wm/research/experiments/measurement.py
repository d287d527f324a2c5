"""Measurements on a network: its mark and its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_wm.research.datasets import Pictures
from keras_wm.research.experiments.run_records import Measurements
from keras_wm.research.experiments.schemes import Mark
from keras_wm.scheme.detection import corrected, detect
from keras_wm.scheme.key import WatermarkKey
from keras_wm.utils.arrays import Floats

_BINS = 60


def measure_network(model: Any, pictures: Pictures, mark: Mark) -> Measurements:
    """Returns the test error of a network, and how well a mark can be read from it."""
    error = pictures.test_error(model)
    return {"test_error": error, **measure_mark(model, mark)}


def measure_mark(model: Any, mark: Mark) -> Measurements:
    r"""Returns how well a mark can be read from a network.

    Returns:
        Over all layers of the mark: the bit error rate `"ber"`; the papers' E_R as a
        mean per bit, `"embedding_loss"`; the mean and the smallest score, `"z_mean"`
        and `"z_min"`; and log10 of the p-values, `"log10_p_hard"` of the bits and
        `"log10_p"` of the scores (of the bits where that of the scores is not exact).
        Each layer is tested by itself, and the smallest p-value is corrected for
        the number of layers.
    """
    kernels = [np.asarray(model.get_layer(layer).kernel) for layer in mark.layers]
    pairs = list(zip(kernels, mark.keys(), strict=True))
    detections = [detect(kernel, key) for kernel, key in pairs]
    z = np.concatenate([detection.z for detection in detections])
    outputs = np.concatenate([signed_outputs(kernel, key) for kernel, key in pairs])
    return {
        "ber": float(np.mean(z <= 0)),
        "embedding_loss": float(np.logaddexp(0, -outputs).mean()),
        "z_mean": float(z.mean()),
        "z_min": float(z.min()),
        "log10_p_hard": _smallest([layer.log10_p_hard for layer in detections]),
        "log10_p": _smallest([layer.log10_p for layer in detections]),
    }


def signed_outputs(kernel: Any, key: WatermarkKey) -> Floats:
    r"""Returns \(s_j (x_j \cdot u_j)\) of each bit, shape `(T,)`.

    A bit is read correctly where it is positive.
    """
    mark = key.for_shape(kernel.shape)
    flat = kernel.reshape(mark.size, mark.count).astype(np.float64)
    u = flat @ mark.filter_weights.T
    groups = np.arange(mark.bits) % mark.groups
    outputs: Floats = mark.signs * np.einsum("tm,mt->t", mark.matrix, u[:, groups])
    return outputs


def measure_kernel(kernel: Any) -> Measurements:
    """Returns the standard deviations and the histogram of a kernel's weights.

    Returns:
        `"kernel_std"`, `"mean_filter_std"`, and `"histogram"`: the counts in bins of
        equal width between `"low"` and `"high"`.
    """
    limit = float(np.abs(kernel).max()) or 1.0
    counts, _ = np.histogram(kernel, _BINS, (-limit, limit))
    return {
        "kernel_std": float(kernel.std()),
        "mean_filter_std": float(kernel.mean(axis=-1).std()),
        "histogram": {"low": -limit, "high": limit, "counts": counts.tolist()},
    }


def _smallest(log10_p: list[float]) -> float:
    return corrected(min(log10_p), len(log10_p))
