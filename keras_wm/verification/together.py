"""The test of all kernels of a network together, which may carry a mark each."""

from __future__ import annotations

from collections.abc import Sequence
from math import lgamma, log

import numpy as np

from keras_wm.scheme.detection import Detection
from keras_wm.verification.search_result import SearchResult

TOGETHER = "together"


def together(slots: Sequence[SearchResult]) -> SearchResult:
    r"""Combines the results of several slots into one test.

    Which kernel carries the mark of a slot need not be known: the p-value \(p_k\) of
    slot k is that of its most significant kernel, multiplied by the number of kernels.
    The arrays of different slots are independent, so without a mark these p-values are
    independent, whatever the kernels are. Their product has the p-value

    \[P\Big[\chi^2_{2K} \ge -2 \sum_k \ln p_k\Big]
    = \Big(\prod_k p_k\Big) \sum_{i < K} \frac{(-\ln \prod_k p_k)^i}{i!}\]

    ([Fisher 1925](https://doi.org/10.1007/978-1-4612-4380-9_6)).

    Args:
        slots: The result of each slot: its best kernel, with all kernels counted.

    Returns:
        A `SearchResult` with one counted test. Its bits are those of all slots.
    """
    found = [result for result in slots if result.detection is not None]
    if not found:
        return SearchResult(name=TOGETHER, skipped=slots[0].skipped)
    detections = [result.detection for result in found if result.detection]
    return SearchResult(
        kernels=tuple(kernel for result in found for kernel in result.kernels),
        detection=Detection(
            np.concatenate([detection.z for detection in detections]),
            np.concatenate([detection.message for detection in detections]),
            None,
        ),
        tried=1,
        counted=1,
        skipped=slots[0].skipped,
        parts={
            f"{result.layer}, slot {result.slot}": detection
            for result, detection in zip(found, detections, strict=True)
        },
        name=TOGETHER,
        log10_product=log10_p_of_product(
            [result.log10_p_corrected for result in found]
        ),
    )


def log10_p_of_product(log10_p: Sequence[float]) -> float:
    """Returns log10 of the p-value of a product of independent p-values.

    Args:
        log10_p: log10 of each p-value. They may be smaller than a float can be.
    """
    exponent = -float(np.sum(log10_p)) * log(10)
    if exponent == 0:
        return 0.0
    terms = np.array([i * log(exponent) - lgamma(i + 1) for i in range(len(log10_p))])
    tail = float(np.logaddexp.reduce(terms)) - exponent
    return min(0.0, tail / log(10))
