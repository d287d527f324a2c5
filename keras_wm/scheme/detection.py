r"""What a kernel says about a message: scores, bit errors and p-values.

The score of bit j is \(z_j = s_j y_j / \lVert u_j \rVert\) with
\(s_j = 2 b_j - 1\). For a random X that knows nothing of the kernel the scores are
exactly i.i.d. N(0, 1), whatever the kernel is; with a derived message each of them
is positive with probability exactly 1/2 for the other projections too. Hence both
p-values below are exact, not asymptotic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import lgamma, log, log10, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_wm.scheme.normal import log_tail
from keras_wm.utils.arrays import Floats

if TYPE_CHECKING:
    from keras_wm.scheme.key import WatermarkKey

_PART_BYTES = 2 * 2**20
# What is left of unit vectors that cancel is rounding, and no direction.
_VANISHING = 1e-9


@dataclass(frozen=True, eq=False)
class Detection:
    """The scores of one message in one kernel, and what follows from them.

    Attributes:
        z: The scores, shape `(T,)`, positive where a bit is read right, in
            standard deviations of what an unmarked kernel gives.
        message: The bits that were looked for, shape `(T,)`.
        normal: Whether the scores of an unmarked kernel are exactly N(0, 1),
            so that their sum is evidence too.
        problem: Why the kernel is no evidence at all (constant, or not finite),
            or an empty string.
    """

    z: Floats
    message: NDArray[np.uint8]
    normal: bool
    problem: str = ""

    @property
    def bits(self) -> int:
        """T, the length of the message."""
        return len(self.z)

    @cached_property
    def matches(self) -> int:
        """How many bits are read right. A tie is never a match."""
        return int(np.count_nonzero(self.z > 0))

    @property
    def ber(self) -> float:
        """The bit error rate: the share of bits that are not read right."""
        return 1.0 - self.matches / self.bits

    @property
    def recovered(self) -> NDArray[np.uint8]:
        """The bits as the kernel gives them, shape `(T,)`."""
        return np.where(self.z > 0, self.message, 1 - self.message).astype(np.uint8)

    @property
    def z_mean(self) -> float:
        """The mean score."""
        return float(self.z.mean())

    @property
    def z_min(self) -> float:
        """The smallest score: the margin that every bit keeps."""
        return float(self.z.min())

    @cached_property
    def log10_p_hard(self) -> float:
        """log10 of P[Bin(T, 1/2) >= matches]: how surprising so few errors are."""
        return log10_binomial_tail(self.matches, self.bits)

    @cached_property
    def log10_p_soft(self) -> float | None:
        """log10 of P[N(0, 1) >= sum(z) / sqrt(T)]; None where the z are not normal."""
        if not self.normal:
            return None
        return log_tail(float(self.z.sum()) / sqrt(self.bits)) / log(10)

    @property
    def log10_p(self) -> float:
        """The p-value that the verdict rests on: soft where exact, else hard."""
        return self.log10_p_hard if self.log10_p_soft is None else self.log10_p_soft

    def to_dict(self) -> dict[str, Any]:
        """The figures, as plain Python values."""
        return {
            "bits": self.bits,
            "matches": self.matches,
            "ber": self.ber,
            "z_mean": self.z_mean,
            "z_min": self.z_min,
            "log10_p_hard": self.log10_p_hard,
            "log10_p_soft": self.log10_p_soft,
            "problem": self.problem,
        }


def detect(kernel: NDArray[Any], key: WatermarkKey) -> Detection:
    """Reads a key's message from a kernel.

    Args:
        kernel: Array of rank 2 or more, filters last: `(S, S, D, L)` of a
            convolution, `(D, L)` of a dense layer.
        key: The key to look for.

    Returns:
        A `Detection`.

    Raises:
        ValueError: If the kernel cannot carry the key's message.
    """
    return detect_jointly([kernel], key)


def detect_jointly(kernels: Iterable[NDArray[Any]], key: WatermarkKey) -> Detection:
    r"""Reads a key's message from several kernels that carry it, as one.

    Kernels of one M are read through the same X, and are no independent witnesses if
    they are alike. So the directions of all of them are added before they are
    projected, and bit j scores

    \[z_j = s_j \sum_M x^M_j \cdot v^M_j \Big/
    \Big(\sum_M \lVert v^M_j \rVert^2\Big)^{1/2}, \qquad
    v^M_j = \sum_{W \text{ of } M} u_j / \lVert u_j \rVert.\]

    If X is random and knows nothing of the kernels, these are i.i.d. N(0, 1) again,
    however alike the kernels are.

    Args:
        kernels: Arrays as for `detect`. One that is no evidence is left out.
        key: The key to look for.

    Returns:
        A `Detection`; of a single kernel, what `detect` gives.

    Raises:
        ValueError: If one of the kernels cannot carry the key's message.
    """
    added: dict[int, Floats] = {}
    problems = []
    for kernel in kernels:
        size, count = key.check_shape(kernel.shape)
        problem = _problem(kernel)
        if problem:
            problems.append(problem)
            continue
        weights = key.filter_weights(count)
        directions = _directions(kernel.reshape(size, count), weights)
        added[size] = added[size] + directions if size in added else directions
    if not added:
        return Detection(np.zeros(key.bits), key.message, key.normal, problems[0])
    y = sum(_projected(v, key, size) for size, v in added.items())
    squares = sum(np.einsum("gm,gm->g", v, v) for v in added.values())
    norms = np.sqrt(squares)[np.arange(key.bits) % key.groups]
    z = np.divide(y, norms, out=np.zeros(key.bits), where=norms > _VANISHING)
    return Detection(z * key.signs, key.message, key.normal)


def _projected(directions: Floats, key: WatermarkKey, size: int) -> Floats:
    """x_j . v_j over the spread of x_j, shape `(T,)`, for v of shape `(G, M)`."""
    y = np.empty(key.bits)
    for first, rows in key.row_blocks(size):
        for row in range(min(key.groups, len(rows))):
            bits = slice(first + row, first + len(rows), key.groups)
            y[bits] = rows[row :: key.groups] @ directions[(first + row) % key.groups]
    return y / key.spread(size)


def _directions(flat: NDArray[Any], weights: Floats) -> Floats:
    """u / |u| with u = W a; zeros where u vanishes.

    Args:
        flat: W, shape `(M, L)`.
        weights: a, shape `(G, L)`.

    Returns:
        Array of shape `(G, M)`.
    """
    # Scores do not depend on the scale; at scale 1 no square overflows.
    scale = max(float(flat.max()), -float(flat.min()))
    u = np.empty((len(weights), len(flat)))
    # In parts, for a kernel of gigabytes shall not be there a second time.
    step = max(1, _PART_BYTES // (8 * flat.shape[1]))
    for start in range(0, len(flat), step):
        part = flat[start : start + step].astype(np.float64) / scale
        u[:, start : start + step] = weights @ part.T
    norms = np.linalg.norm(u, axis=1, keepdims=True)
    np.divide(u, norms, out=u, where=norms > 0)
    return u


def log10_binomial_tail(matches: int, trials: int) -> float:
    """log10 of P[Bin(trials, 1/2) >= matches], exact far below 1e-308."""
    if matches == 0:
        return 0.0
    log_counts = np.array(
        [-lgamma(k + 1) - lgamma(trials - k + 1) for k in range(matches, trials + 1)]
    )
    largest = log_counts.max()
    log_sum = largest + log(np.exp(log_counts - largest).sum()) + lgamma(trials + 1)
    return min(0.0, float((log_sum - trials * log(2)) / log(10)))


def corrected(log10_p: float, tries: int) -> float:
    """log10 of a p-value after `tries` places were tried (Bonferroni)."""
    return min(0.0, log10_p + log10(max(tries, 1)))


def format_p(log10_p: float) -> str:
    """A p-value to read: `0.031`, and `10^-1300` where a float would be 0."""
    return f"{10**log10_p:.2g}" if log10_p > -4 else f"10^{log10_p:.1f}"


def _problem(kernel: NDArray[Any]) -> str:
    if not np.isfinite(kernel).all():
        return "it holds NaN or infinite weights"
    if kernel.size == 0 or kernel.min() == kernel.max():
        return "all its weights are equal"
    return ""
