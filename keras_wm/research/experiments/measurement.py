"""What is measured on a network: its mark and its weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_wm.research.experiments.schemes import Mark
from keras_wm.scheme.detection import corrected, detect
from keras_wm.utils.arrays import Floats

_BINS = 60
Figures = dict[str, Any]


def mark_figures(model: Any, mark: Mark) -> Figures:
    r"""What a network shows of a mark.

    Returns:
        Over all of the mark's layers: the bit error rate `"ber"`; the papers' E_R
        as a mean per bit, `"embedding_loss"`; the mean and the smallest score; and
        log10 of the p-values of the bits and, where exact, of the scores, each
        layer tested by itself and the smallest corrected for their number.
    """
    kernels = [np.asarray(model.get_layer(layer).kernel) for layer in mark.layers]
    key = mark.key()
    found = [detect(kernel, key) for kernel in kernels]
    z = np.concatenate([one.z for one in found])
    outputs = np.concatenate([signed_outputs(kernel, mark) for kernel in kernels])
    return {
        "ber": float(np.mean(z <= 0)),
        "embedding_loss": float(np.logaddexp(0, -outputs).mean()),
        "z_mean": float(z.mean()),
        "z_min": float(z.min()),
        "log10_p_hard": _smallest([one.log10_p_hard for one in found]),
        "log10_p": _smallest([one.log10_p for one in found]),
    }


def signed_outputs(kernel: Any, mark: Mark) -> Floats:
    r"""\(s_j y_j\) of each bit: above 0 where it is read right; shape `(T,)`."""
    key = mark.key()
    size, count = key.check_shape(kernel.shape)
    u = kernel.reshape(size, count).astype(np.float64) @ key.filter_weights(count).T
    groups = np.arange(key.bits) % key.groups
    outputs: Floats = key.signs * np.einsum("tm,mt->t", key.matrix(size), u[:, groups])
    return outputs


def kernel_figures(kernel: Any) -> Figures:
    """How a kernel's weights are distributed: standard deviations, a histogram.

    Returns:
        `"kernel_std"`, `"mean_filter_std"`, and under `"histogram"` the counts
        between `"low"` and `"high"`, in bins of equal width.
    """
    reach = float(np.abs(kernel).max()) or 1.0
    counts, _ = np.histogram(kernel, _BINS, (-reach, reach))
    return {
        "kernel_std": float(kernel.std()),
        "mean_filter_std": float(kernel.mean(axis=-1).std()),
        "histogram": {"low": -reach, "high": reach, "counts": counts.tolist()},
    }


def _smallest(log10_p: list[float]) -> float:
    return corrected(min(log10_p), len(log10_p))
