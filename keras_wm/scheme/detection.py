r"""Detection of a message in a kernel: scores, bit errors and p-values.

The score of bit j is \(z_j = s_j y_j / \lVert u_j \rVert\) with
\(s_j = 2 b_j - 1\). If X is random and independent of the kernel, the scores are
exactly i.i.d. N(0, 1), whatever the kernel is. For a recipient's key the tail of their
sum is bounded by that of a normal deviate. For the other projections each score is
positive with probability exactly 1/2, because the message is derived from the secret.
The p-values below are therefore exact or upper bounds, not asymptotic.
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
    from keras_wm.scheme.kernel_key import KernelKey
    from keras_wm.scheme.key import WatermarkKey

_CHUNK_BYTES = 2 * 2**20
# The sum of unit vectors that cancel each other is rounding error of about 1e-16. Its
# direction means nothing.
_SMALLEST_NORM = 1e-9


@dataclass(frozen=True, eq=False)
class Detection:
    r"""The scores of a key's message in a kernel, and the statistics of them.

    The hard p-value uses only the number of correct bits k, the soft p-value the sum of
    the scores:

    \[p_\text{hard} = P[\mathrm{Bin}(T, 1/2) \ge k], \qquad
    p_\text{soft} = c P\Big[N(0, 1) \ge \sum_j z_j / \sqrt{T}\Big].\]

    The factor c is 1 for a random projection. Both are the probability of such a result
    in a kernel that does not depend on the key, or an upper bound of it. They are not
    corrected for the number of kernels that were tried.

    Attributes:
        z: The scores, shape `(T,)`, in standard deviations of the scores in an unmarked
            kernel. A bit is read correctly if its score is positive.
        message: The bits of the key, shape `(T,)`.
        tail_factor: The factor c of the soft p-value, or `None` if that does not exist.
        problem: Reason why the kernel is not evidence (all weights are equal, or some
            are not finite), or an empty string.
    """

    z: Floats
    message: NDArray[np.uint8]
    tail_factor: float | None
    problem: str = ""

    @property
    def bits(self) -> int:
        """T, the length of the message."""
        return len(self.z)

    @cached_property
    def matches(self) -> int:
        """The number of bits that are read correctly. A score of 0 does not count."""
        return int(np.count_nonzero(self.z > 0))

    @property
    def ber(self) -> float:
        """The bit error rate: the share of bits that are not read correctly."""
        return 1.0 - self.matches / self.bits

    @property
    def recovered(self) -> NDArray[np.uint8]:
        """The bits that are read from the kernel, shape `(T,)`."""
        return np.where(self.z > 0, self.message, 1 - self.message).astype(np.uint8)

    @property
    def z_mean(self) -> float:
        """The mean score."""
        return float(self.z.mean())

    @property
    def z_min(self) -> float:
        """The smallest score."""
        return float(self.z.min())

    @cached_property
    def log10_p_hard(self) -> float:
        """log10 of the hard p-value, P[Bin(T, 1/2) >= matches]."""
        return log10_binomial_tail(self.matches, self.bits)

    @cached_property
    def log10_p_soft(self) -> float | None:
        """log10 of the soft p-value, c P[N(0, 1) >= sum(z) / sqrt(T)].

        `None` if there is no such bound of the tail.
        """
        if self.tail_factor is None:
            return None
        tail = log_tail(float(self.z.sum()) / sqrt(self.bits))
        return min(0.0, (tail + log(self.tail_factor)) / log(10))

    @property
    def log10_p(self) -> float:
        """log10 of the p-value for the verdict: the soft one if it exists."""
        return self.log10_p_hard if self.log10_p_soft is None else self.log10_p_soft

    def to_dict(self) -> dict[str, Any]:
        """Returns the statistics as plain Python values."""
        names = ("bits", "matches", "ber", "z_mean", "z_min")
        more_names = ("log10_p_hard", "log10_p_soft", "problem")
        return {name: getattr(self, name) for name in names + more_names}


def detect(kernel: NDArray[Any], key: WatermarkKey) -> Detection:
    r"""Detects a key's message in a kernel.

    With \(u_j = W a_{j \bmod G}\), or the j-th block of W for a recipient's key, and
    the standard deviation c of \(x_j \cdot v\) for a random unit vector v, bit j has
    the score

    \[z_j = s_j \, x_j \cdot u_j / (c \lVert u_j \rVert), \qquad s_j = 2 b_j - 1.\]

    If the key has an anchor in its slot, \(A u_j\) takes the place of \(u_j\): see
    `keras_wm.scheme.anchor`.

    Args:
        kernel: Array of rank 2 or more, filters last: `(S, S, D, L)` for a convolution,
            `(D, L)` for a dense layer.
        key: Key to look for.

    Returns:
        A `Detection`.

    Raises:
        ValueError: If the kernel cannot hold the key's message.

    Example:

    ```python
    detection = keras_wm.detect(model.get_layer("c1").get_weights()[0], key)
    print(detection.ber, detection.log10_p)
    ```
    """
    return detect_jointly([(kernel, key)])


def detect_jointly(
    marks: Iterable[tuple[NDArray[Any], WatermarkKey]],
) -> Detection:
    r"""Detects a key's message in several kernels that carry it, as one test.

    Kernels of one shape in one slot are read through the same X, so the scores of
    similar kernels are not independent. The unit vectors of all kernels with the same
    slot and shape n are therefore added before they are projected:

    \[z_j = \sum_n s^n_j \, x^n_j \cdot v^n_j \Big/
    \Big(\sum_n \lVert v^n_j \rVert^2\Big)^{1/2}, \qquad
    v^n_j = \sum_{W \text{ of } n} u_j / \lVert u_j \rVert.\]

    If X is random and independent of the kernels, these scores are i.i.d. N(0, 1),
    however similar the kernels are.

    Args:
        marks: Pairs of an array, as for `detect`, and the key in the slot of this
            kernel. Kernels that are not evidence are left out.

    Returns:
        A `Detection`. For a single kernel, it is the result of `detect`. The message
        is that of the first kernel.

    Raises:
        ValueError: If one of the kernels cannot hold the key's message.
    """
    sums: dict[KernelKey, Floats] = {}
    problems = []
    for kernel, key in marks:
        mark = key.for_shape(kernel.shape)
        problem = _problem(kernel)
        if problem:
            problems.append((mark, problem))
            continue
        flat = kernel.reshape(mark.size, mark.count)
        units = _unit_vectors(flat, mark)
        sums[mark] = sums[mark] + units if mark in sums else units
    if not sums:
        mark, problem = problems[0]
        return Detection(np.zeros(mark.bits), mark.message, mark.tail_factor, problem)
    y = sum(_projected(v, mark) for mark, v in sums.items())
    squares = sum(np.einsum("gm,gm->g", v, v) for v in sums.values())
    mark, *_ = sums
    norms = np.sqrt(squares)[np.arange(mark.bits) % mark.groups]
    z = np.divide(y, norms, out=np.zeros(mark.bits), where=norms > _SMALLEST_NORM)
    return Detection(z, mark.message, mark.tail_factor)


def _projected(vectors: Floats, mark: KernelKey) -> Floats:
    """Returns s_j x_j . v_j over the spread of x_j, shape `(T,)`, for v of `(G, M)`."""
    y = np.empty(mark.bits)
    for first, rows in mark.row_blocks():
        if mark.in_blocks:
            bits = slice(first, first + len(rows))
            y[bits] = np.einsum("jk,jk->j", rows, vectors[bits])
            continue
        for group in range(min(mark.groups, len(rows))):
            bits = slice(first + group, first + len(rows), mark.groups)
            y[bits] = rows[group :: mark.groups] @ vectors[group]
    return mark.signs * y / mark.spread


def _unit_vectors(flat: NDArray[Any], mark: KernelKey) -> Floats:
    """Returns u / |u| for all vectors u that bits are read from; zeros where u is 0."""
    # Scores do not depend on the scale. With weights of at most 1 no square overflows.
    scale = max(float(flat.max()), -float(flat.min()))
    if mark.in_blocks:
        scaled = flat.astype(np.float64) / scale
        u = mark.blocks(mark.anchor.applied(scaled) if mark.anchor else scaled)
    else:
        u = _combined(flat, mark.filter_weights, scale)
        if mark.anchor:
            u = mark.anchor.applied(u.T).T
    norms = np.linalg.norm(u, axis=1, keepdims=True)
    np.divide(u, norms, out=u, where=norms > 0)
    return u


def _combined(flat: NDArray[Any], weights: Floats, scale: float) -> Floats:
    """Returns the combinations W a / scale of the filters, shape `(G, M)`."""
    u = np.empty((len(weights), len(flat)))
    # In chunks, because a copy of a kernel of gigabytes may not fit into memory.
    step = max(1, _CHUNK_BYTES // (8 * flat.shape[1]))
    for start in range(0, len(flat), step):
        chunk = flat[start : start + step].astype(np.float64) / scale
        u[:, start : start + step] = weights @ chunk.T
    return u


def log10_binomial_tail(matches: int, trials: int) -> float:
    """Returns log10 of P[Bin(trials, 1/2) >= matches], also far below 1e-308."""
    if matches == 0:
        return 0.0
    log_counts = np.array(
        [-lgamma(k + 1) - lgamma(trials - k + 1) for k in range(matches, trials + 1)]
    )
    largest = log_counts.max()
    log_sum = largest + log(np.exp(log_counts - largest).sum()) + lgamma(trials + 1)
    return min(0.0, float((log_sum - trials * log(2)) / log(10)))


def corrected(log10_p: float, tries: int) -> float:
    """Returns log10 of a p-value times the number of tests (Bonferroni).

    Args:
        log10_p: log10 of the smallest p-value of all tests.
        tries: Number of tests.
    """
    return min(0.0, log10_p + log10(max(tries, 1)))


def format_p(log10_p: float) -> str:
    """Returns a p-value as text: `0.031`, or `10^-1300` where a float would be 0."""
    return f"{10**log10_p:.2g}" if log10_p > -4 else f"10^{log10_p:.1f}"


def _problem(kernel: NDArray[Any]) -> str:
    """Returns the reason why a kernel is not evidence, or an empty string."""
    if not np.isfinite(kernel).all():
        return "it holds NaN or infinite weights"
    if kernel.min() == kernel.max():
        return "all its weights are equal"
    return ""
